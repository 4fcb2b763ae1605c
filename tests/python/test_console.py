# SPDX-License-Identifier: Apache-2.0
"""The page at "/" in a real browser: it chats, draws its plots, and takes what a model writes for text."""
import urllib.request

import pytest

import browser

pytestmark = pytest.mark.skipif(browser.BINARY is None, reason="no chromium; scripts/install-deps test installs it")


@pytest.fixture
def page(tmp_path):
    one = browser.Page(tmp_path / "profile")
    yield one
    one.close()


def ask(page, text):
    page.run(f"document.getElementById('prompt').value = {text!r}; document.getElementById('ask').requestSubmit()")
    page.wait_for("!document.getElementById('send').disabled")


def turns(page, kind):
    return page.run(f"[...document.querySelectorAll('.turn.{kind}')].map((turn) => turn.textContent)")


def test_chat_streams_an_answer_and_keeps_the_conversation(server, page):
    page.open(server.base + "/")
    page.wait_for("document.getElementById('state').textContent === 'ready'")
    page.wait_for("document.getElementById('model').textContent.includes('millrace-tiny')")
    ask(page, "What is 12 plus 30?")
    ask(page, "Thank you!")
    assert len(turns(page, "user")) == 2 and all(turns(page, "assistant"))
    read = [int(usage.split()[0]) for usage in turns(page, "usage")]
    assert len(read) == 2 and read[1] > read[0]
    assert page.complaints == []


def test_plots_follow_the_metrics(server, page):
    page.open(server.base + "/")
    page.wait_for("document.querySelectorAll('#plot-tokens polyline').length === 2", 20)
    ask(page, "Tell me a story.")
    page.wait_for("/[1-9]/.test(document.getElementById('now-tokens').value)", 20)
    assert page.complaints == []


def test_markup_in_a_message_stays_text(server, page):
    page.open(server.base + "/")
    ask(page, "<img src=x onerror=alert(1)><b>bold</b>")
    assert page.run("document.querySelectorAll('#turns img, #turns b').length") == 0
    assert "<b>bold</b>" in turns(page, "user")[0]


def test_a_key_is_asked_for_and_used(start, page):
    server = start("--api-key", "sk-console")
    page.open(server.base + "/")
    ask(page, "Hello")
    assert turns(page, "error") and not turns(page, "assistant")
    page.run("document.getElementById('key').value = 'sk-console'")
    ask(page, "Hello")
    assert turns(page, "assistant")
    assert "sk-console" not in page.run("document.documentElement.outerHTML")


def test_the_page_is_closed_to_what_is_not_its_own(server):
    with urllib.request.urlopen(server.base + "/") as answer:
        policy = answer.headers["content-security-policy"]
        text = answer.read().decode()
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "://" not in text.replace("http://www.w3.org", "")
