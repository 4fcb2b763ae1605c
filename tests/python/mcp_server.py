# SPDX-License-Identifier: Apache-2.0
"""An MCP server of the official SDK's for the tests. mcp_server.py [--old] [--folder F]: with the handshake alone; F
gets a file for each thing that a test waits for."""
import os
import pathlib
import sys
import threading

import anyio
from mcp.server.mcpserver import MCPServer

FOLDER = pathlib.Path(sys.argv[sys.argv.index("--folder") + 1]) if "--folder" in sys.argv else None
server = MCPServer("shop", log_level="ERROR")


@server.tool(description="Evaluates an arithmetic expression.")
def calculator(expression: str) -> str:
    left, right = expression.split("*")
    return str(int(left) * int(right))


@server.tool()
async def wait() -> str:
    """Waits for ever."""
    (FOLDER / "waiting").touch()
    try:
        await anyio.sleep_forever()
    finally:
        (FOLDER / "cancelled").touch()
    return ""


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def environment(name: str) -> str:
    """Tells a variable."""
    return os.environ.get(name, "not set")


async def serve_old():
    """As servers did before 2026-07-28: a request before the handshake is refused."""
    from mcp.server.runner import serve_loop
    from mcp.server.stdio import stdio_server
    lowlevel = server._lowlevel_server
    async with stdio_server() as (read, write), lowlevel.lifespan(lowlevel) as state:
        await serve_loop(lowlevel, read, write, lifespan_state=state)


if __name__ == "__main__":
    print("the shop is open, token", os.environ.get("SHOP_TOKEN"), file=sys.stderr, flush=True)
    if "--old" in sys.argv:
        anyio.run(serve_old)
    else:
        server.run("stdio")
