"""Chat templates in the structure of six families, written here after their published formats.

They keep what bears on masks: which marks begin and end a turn, what becomes of reasoning in a history, how
calls and what tools give are written, and what is refused.
"""

# ruff: noqa: E501

import json
from collections.abc import Sequence
from typing import Any

from preceptor.engines.templates import ChatTemplate
from preceptor.types import Message

_ALTERNATE = (
    "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% endfor %}"
)

LLAMA_3 = (
    "{{ bos_token }}{% set first = namespace(left=tools is not none) %}"
    "{% for m in messages %}"
    "{% if m.tool_calls is defined %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('Only single tool-calls at once!') }}{% endif %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
    "{{ m.tool_calls[0].function.arguments | tojson }}}<|eot_id|>"
    "{% elif m.role in ('tool', 'ipython') %}<|start_header_id|>ipython<|end_header_id|>\n\n"
    "{{ m.content | tojson }}<|eot_id|>"
    "{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if first.left and m.role == 'user' %}{% set first.left = false %}Functions:\n"
    "{% for t in tools %}{{ t | tojson(indent=4) }}\n\n{% endfor %}{% endif %}"
    "{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

QWEN_3 = (
    "{% set at = namespace(last=-1) %}{% for m in messages %}"
    "{% if m.role == 'user' and not m.content.startswith('<tool_response>') %}"
    "{% set at.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}<tools>"
    "{% for t in tools %}\n{{ t | tojson }}{% endfor %}\n</tools><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}{% set content = m.content %}{% set thought = '' %}"
    "{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}"
    "{% elif '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n"
    "{% if loop.index0 > at.last and (loop.last or thought) %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{% else %}{{ content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{% if (loop.first and content) or not loop.first %}{{ '\n' }}{% endif %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": '
    "{% if c.function.arguments is string %}{{ c.function.arguments }}"
    "{% else %}{{ c.function.arguments | tojson }}{% endif %}}\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% elif m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

GEMMA_3 = (
    "{{ bos_token }}{% set turns = messages %}{% set lead = '' %}"
    "{% if messages[0].role == 'system' %}{% set lead = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% endif %}" + _ALTERNATE + "{% for m in turns %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ lead if loop.first }}{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

MISTRAL = (
    "{{ bos_token }}{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages %}"
    "{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]"
    "{% elif m.role == 'user' %}"
    "{% if tools and m == users[-1] %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST]{{ m.content }}[/INST]"
    "{% elif m.tool_calls is defined %}[TOOL_CALLS]["
    "{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{{ ', ' if not loop.last }}{% endfor %}]{{ eos_token }}"
    "{% elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}"
    "{% elif m.role == 'tool' %}"
    '[TOOL_RESULTS]{"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% else %}{{ raise_exception('Only user, system, assistant and tool roles are supported!') }}"
    "{% endif %}{% endfor %}"
)

GPT_OSS = (
    "<|start|>system<|message|>You are a model.<|end|>"
    "{% if messages[0].role in ('system', 'developer') or tools %}<|start|>developer<|message|>"
    "{% if messages[0].role in ('system', 'developer') %}{{ messages[0].content }}{% endif %}"
    "{% for t in tools or [] %}\ntype {{ t.function.name }} = (_: {{ t.function.parameters | tojson }}) => any;"
    "{% endfor %}<|end|>{% endif %}"
    "{% set last = namespace(call='') %}"
    "{% set later = namespace(final=false) %}"
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}{% if '<|channel|>' in m.content %}"
    "{{ raise_exception('channels in the content') }}{% endif %}"
    "{% if m.tool_calls %}"
    "{% set later.final = false %}{% for n in messages[loop.index:] %}"
    "{% if n.role == 'assistant' and not n.tool_calls %}{% set later.final = true %}{% endif %}{% endfor %}"
    "{% if m.thinking and not later.final %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>"
    "{% endif %}{% set c = m.tool_calls[0].function %}{% set last.call = c.name %}"
    "<|start|>assistant to=functions.{{ c.name }}<|channel|>commentary json<|message|>"
    "{{ c.arguments | tojson }}<|call|>"
    "{% elif loop.last and not add_generation_prompt %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>"
    "{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% elif m.role == 'tool' %}<|start|>functions.{{ last.call }} to=assistant<|channel|>commentary<|message|>"
    "{{ m.content | tojson }}<|end|>"
    "{% elif m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)

PHI_4 = (
    "{% for m in messages %}{% if m.role == 'system' %}<|im_start|>system<|im_sep|>{{ m.content }}<|im_end|>"
    "{% elif m.role == 'user' %}<|im_start|>user<|im_sep|>{{ m.content }}<|im_end|>"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant<|im_sep|>{{ m.content }}<|im_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)

R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}<|User|>{{ m.content }}"
    "{% elif m.role == 'assistant' and m.tool_calls is defined and m.content is none %}<|Assistant|>"
    "{% for c in m.tool_calls %}<|tool_call|>{{ c.type + '<|tool_sep|>' + c.function.name + '\n```json\n' "
    "+ c.function.arguments + '\n```' }}<|tool_call_end|>{% endfor %}{{ eos_token }}"
    "{% elif m.role == 'assistant' %}{% set content = m.content or '' %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "<|Assistant|>{{ content }}{{ eos_token }}"
    "{% elif m.role == 'tool' %}<|tool_output|>{{ m.content }}<|tool_output_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)

SOURCES = {
    "llama3": LLAMA_3,
    "qwen3": QWEN_3,
    "gemma3": GEMMA_3,
    "mistral": MISTRAL,
    "gpt-oss": GPT_OSS,
    "phi4": PHI_4,
    "r1": R1,
}

MARKS = [
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|im_start|>", "<|im_end|>", "<|im_sep|>", "<start_of_turn>", "<end_of_turn>"),
    *("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]"),
    *("[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("<|start|>", "<|message|>", "<|end|>", "<|channel|>", "<|call|>", "<|return|>"),
    *("<|User|>", "<|Assistant|>", "<|tool_call|>", "<|tool_sep|>", "<|tool_call_end|>"),
    *("<|tool_output|>", "<|tool_output_end|>"),
]
"""The control tokens of all these templates."""

WITHIN = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]
"""Tokens of their own that are not marked as special."""


def template_of(family: str) -> ChatTemplate:
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": ""}
    return ChatTemplate(family, SOURCES[family], special)


def family_tokenizer(build: Any) -> Any:
    """Return a small tokenizer that knows the control tokens of all families."""
    tokenizer = build(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.add_tokens(WITHIN)
    return tokenizer


def call(name: str, **arguments: object) -> str:
    calls = [{"arguments": arguments, "name": name}]
    return json.dumps(calls, sort_keys=True, separators=(",", ":"))


TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Add two numbers.",
                "parameters": {"type": "object", "properties": {"one": {"type": "number"}}},
            },
        }
    ],
    sort_keys=True,
    separators=(",", ":"),
)


def agent(*, thoughts: bool = False) -> Sequence[Message]:
    """Return a conversation: an answer, a call, what the tool gave, an answer to it, and its follow-up."""
    thought = "<think>\nThe {} is near.\n</think>\n\n" if thoughts else ""
    return (
        Message("system", "The sea is deep."),
        Message("user", "Hello there!"),
        Message("assistant", f"{thought.format('cat')}Hello! The cat sat."),
        Message("user", "What is two plus two?"),
        Message("assistant", thought.format("dog"), call("add", one=2, two=2)),
        Message("tool", "four is two plus two", name="add"),
        Message("assistant", f"{thought.format('sea')}Two plus two is four."),
        Message("user", "Write a poem."),
        Message("assistant", f"{thought.format('poem')}The sea is wide; the sea is deep."),
    )
