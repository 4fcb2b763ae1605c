# SPDX-License-Identifier: Apache-2.0
"""Calls drawn at temperature 1, in every way of writing them: a small run of benches/server/sampled_calls.py."""
import sys

import pytest

from conftest import ROOT

pytest.importorskip("jsonschema", reason="PyPI's jsonschema is not installed")
sys.path.insert(0, str(ROOT / "benches/server"))
import sampled_calls  # noqa: E402


@pytest.mark.parametrize("call_format", sampled_calls.FORMATS)
def test_every_call_that_ends_is_valid(start, tmp_path, call_format):
    template = tmp_path / "template.jinja"
    template.write_text(sampled_calls.chat_template(call_format))
    server = start("--chat-template", str(template))
    for choice in sampled_calls.CHOICES:
        count = sampled_calls.measure(server.base, call_format, choice, 10)
        assert count["answers"] == 10
        assert count["invalid"] == 0, (choice, count)
        if choice != "auto":
            assert count["without call"] == 0, (choice, count)
            assert count["valid"] > 0, (choice, count)
