"""A chat template sees one time, comes to an end, and does not fill the memory."""

import signal
import threading
import time

import pytest

from data.errors import DataError
from data.rows.bad_rows import BadRow
from data.schema import Message
from data.tokens import chat_template
from data.tokens.chat_template import ChatTemplate, limits, within_limits

ASKED = [Message("user", "Why?")]


def render(tokenizer, **arguments):
    return ChatTemplate(tokenizer).render(ASKED, arguments, open_turn=True)


def test_the_clock_of_templates_stands_still(tokenizer_with):
    assert render(tokenizer_with("{{ strftime_now('%d %b %Y %H:%M:%S') }}")) == "01 Jan 2025 00:00:00"


def test_a_template_is_given_tools_and_the_arguments_of_its_row(tokenizer_with):
    using = tokenizer_with("{{ tools[0].name }} {{ enable_thinking }} {{ bos_token }} {{ messages[0].content }}")
    assert render(using, tools=[{"name": "clock"}], enable_thinking=False) == "clock False <|im_start|> Why?"


def test_a_tokenizer_of_several_templates_takes_the_one_for_tools(tokenizer_with):
    using = tokenizer_with({"default": "plain", "tool_use": "with {{ tools | length }} tool"})
    assert render(using) == "plain"
    assert render(using, tools=[{"name": "clock"}]) == "with 1 tool"


def test_a_template_that_loops_is_stopped(tokenizer_with, monkeypatch):
    monkeypatch.setattr(chat_template, "DEADLINE", 0.3)
    loops = tokenizer_with("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    before, began = signal.getsignal(signal.SIGALRM), time.monotonic()
    with pytest.raises(DataError) as caught, limits(), within_limits("rows.jsonl:7"):
        render(loops)
    assert time.monotonic() - began < 5
    assert str(caught.value) == (
        "The chat template of the tokenizer took more than 0.3 s for rows.jsonl:7 and was stopped. It loops, or the "
        "row is enormous. Nothing of this row was written. Correct the template (chat_template.jinja or "
        "tokenizer_config.json in the model's folder), or take the row out."
    )
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("text", ["{{ 'x' * 2000000000 }}", "{{ (messages[0].content * 600000000) | length }}"])
def test_a_template_that_fills_the_memory_is_stopped(tokenizer_with, text):
    told = pytest.raises(DataError, match=r"wanted over 512 MB for rows.jsonl:7 and was stopped")
    with told, limits(), within_limits("rows.jsonl:7"):
        render(tokenizer_with(text))
    assert len(bytearray(600 * 2**20)) > 0  # the limit is gone


def test_a_template_that_refuses_is_no_reason_to_stop(tokenizer_with):
    with (
        limits(),
        within_limits("rows.jsonl:7"),
        pytest.raises(BadRow, match="template_failed: the chat template refused the row: Templ"),
    ):
        render(tokenizer_with("{{ raise_exception('no such talk') }}"))


@pytest.mark.parametrize(
    ("safe", "unsafe"),
    [
        ("namespace(append=1).append", "messages.append(1)"),
        ("namespace(clear=1).clear", "messages[0].clear()"),
        ("messages[0].role.upper", "messages[0].role.__class__.mro()"),
    ],
)
def test_what_is_unsafe_stays_so_however_often_and_of_whatever_else_it_is_asked(tokenizer_with, safe, unsafe):
    """Objects of one type after those of another, which may have the name."""
    using = tokenizer_with("{% if tools %}{{ " + unsafe + " }}{% else %}{{ " + safe + " }}{% endif %}")
    for _ in range(3):
        assert render(using)
        with pytest.raises(BadRow, match=r"SecurityError: access to attribute .* is unsafe"):
            render(using, tools=[{"name": "clock"}])


def test_a_template_that_ends_leaves_no_alarm_behind(tokenizer_with):
    with limits():
        with within_limits("rows.jsonl:7"):
            assert render(tokenizer_with("text")) == "text"
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["reasoning", "thinking", "reasoning_content"])
def test_reasoning_has_the_names_that_templates_know(tokenizer_with, name):
    said = [*ASKED, Message("assistant", "Because.", {name: "Let me see."})]
    template = "{% for each in messages %}{{ each.reasoning_content }}|{{ each.thinking }}|{% endfor %}"
    text = ChatTemplate(tokenizer_with(template)).render(said, {}, open_turn=False)
    assert text == "||Let me see.|Let me see.|"


def test_another_thread_has_no_deadline_and_renders_all_the_same(tokenizer_with):
    found = []

    def run():
        with limits(), within_limits("rows.jsonl:7"):
            found.append(render(tokenizer_with("text")))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == ["text"]


def test_what_a_template_marks_as_generated(tokenizer_with):
    said = [*ASKED, Message("assistant", "Because.")]
    marked = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}:{% else %}{% generation %}{{ m.content }}"
    text, spans = ChatTemplate(tokenizer_with(marked + "{% endgeneration %}{% endif %}{% endfor %}")).generated(
        said, {}
    )
    assert [text[slice(*span)] for span in spans] == ["Because."]
    assert ChatTemplate(tokenizer_with("{{ messages | length }}")).generated(said, {}) == ("2", None)
