"""What a teacher is asked, what makes it another teacher, and what of its text is the response."""

import pytest

from preceptor.config.runtime import Endpoint
from preceptor.config.teachers import TeacherPoint
from preceptor.engines.reasoning import without_reasoning
from preceptor.teachers.base import request_of
from preceptor.teachers.fake import FakeTeacher
from preceptor.teachers.served import ServedTeacher
from preceptor.types import Instruction, Message

ASKED = Instruction.from_text("Why is the sky blue?")
TEACHER = TeacherPoint(label="sky", model="sky-1", engine="openai")


def changed(**fields: object) -> TeacherPoint:
    return TEACHER.model_copy(update=fields)


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ("<think>\nblue?\n</think>\n\nIt scatters.", "It scatters."),
        ("blue?\n</think>\n\nIt scatters.", "It scatters."),  # the template opened the reasoning
        ("\n<think>cut off before the en", ""),
        ("It scatters.", "It scatters."),
        ("", ""),
        ("Write <think> before and </think> after.", "Write <think> before and </think> after."),
        ("<think></think>\n\nOne </think> two", "One </think> two"),
        ("The `</think>` tag closes a thought.", "The `</think>` tag closes a thought."),
        ("<think>one</think>\n<think>two</think> It scatters.", "It scatters."),
        ("<think>one</think>\n<think>two", ""),
        ("[THINK]blue?[/THINK]It scatters.", "It scatters."),
        ("\u25c1think\u25b7blue?\u25c1/think\u25b7It scatters.", "It scatters."),
        (
            "<|channel|>analysis<|message|>blue?<|end|><|start|>assistant<|channel|>final<|message|>Yes",
            "Yes",
        ),
    ],
)
def test_reasoning_is_no_part_of_the_response(text: str, response: str):
    assert without_reasoning(text) == response


def test_what_a_template_opened_and_nothing_closed_is_all_thought():
    assert without_reasoning("cut off before the en", opened=True) == ""
    assert without_reasoning("blue? </think> It scatters.", opened=True) == "It scatters."


def test_each_sample_has_a_seed_of_its_own_and_greedy_has_none():
    other = Instruction.from_text("Why is the sea blue?")
    seeds = [
        request_of(changed(temperature=0.8, seed=seed), instruction, sample).seed
        for seed in (0, 1)
        for instruction in (ASKED, other)
        for sample in range(3)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)
    assert request_of(changed(temperature=0.8), ASKED, 0).seed == seeds[0]
    assert request_of(TEACHER, ASKED, 0).seed is None


def test_a_system_text_goes_before_the_conversations_own():
    teacher = changed(system="Be brief.")
    own = Instruction((Message("system", "Be kind."), Message("user", "Hello")))
    assert request_of(teacher, ASKED, 0).messages[0] == Message("system", "Be brief.")
    assert request_of(teacher, own, 0).messages == (
        Message("system", "Be brief.\n\nBe kind."),
        Message("user", "Hello"),
    )


def test_what_changes_no_text_makes_no_other_teacher():
    def served(url: str = "http://127.0.0.1:1/v1", **changes: object) -> str:
        return ServedTeacher(changed(**changes), Endpoint(url=url)).identity().digest

    same = served()
    assert served(url="http://127.0.0.1:2/v1") == same
    assert served(label="another label") == same
    assert served(reasoning="keep") == same
    assert served(samples=5, seed=3, top_p=0.5) == same  # greedy knows neither
    for changes in (
        {"model": "sky-2"},
        {"system": "Be brief."},
        {"revision": "2024-06"},
        {"max_tokens": 10},
        {"stop": ("\n",)},
        {"temperature": 0.8},
        {"api": "completions", "chat_template": "chatml"},
    ):
        assert served(**changes) != same
    warm = served(temperature=0.8)
    assert served(temperature=0.8, samples=4) == warm
    assert served(temperature=0.8, seed=1) != warm
    assert served(temperature=0.8, top_p=0.9) != warm
    assert FakeTeacher(TEACHER).identity().digest != same
