"""Why an answer ended, in one spelling: OpenAI's, whatever a server, a batch file or a data set calls it."""

STOP, LENGTH, TOOLS, FILTERED, FAILED = "stop", "length", "tool_calls", "content_filter", "error"

_SPELLINGS = {
    STOP: "stop stopped complete completed finish finished end_turn stop_sequence eos eos_token endoftext "
    "stopped_eos stopped_word",
    LENGTH: "length max_tokens max_token max_length max_output_tokens model_length limit stopped_limit "
    "token_limit model_context_window_exceeded error_limit",
    TOOLS: "tool_calls tool_call tool_use function_call",
    FILTERED: "content_filter content_filtered safety refusal recitation blocklist prohibited_content spii "
    "image_safety guardrail_intervened error_toxic",
    FAILED: "error abort aborted cancelled user_cancel time_limit malformed_function_call not_finished",
}
_KNOWN = {spelling: word for word, listed in _SPELLINGS.items() for spelling in listed.split()}
_LONGEST = 60


def ending_of(reason: object) -> str | None:
    """Return a stated reason in OpenAI's spelling; an unknown one as it stands, None where none is stated.

    Known are the words of OpenAI, Anthropic, Gemini and Vertex, Mistral, Cohere, Bedrock, vLLM, SGLang,
    Text Generation Inference, llama.cpp and Ollama.
    """
    if not isinstance(reason, str) or not reason.strip():
        return None
    word = reason.strip().casefold().replace("-", "_").replace(" ", "_").rpartition(".")[2]
    return _KNOWN.get(word.removeprefix("finish_reason_"), reason.strip()[:_LONGEST])


def is_odd(ending: str | None) -> bool:
    """Tell whether what `ending_of` returned is a reason other than a stop, a limit, a tool, or none."""
    return ending not in (None, STOP, LENGTH, TOOLS)
