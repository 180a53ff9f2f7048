"""A user's own files: good ones load, bad ones say where and what."""

import json

import pytest

from paperlab.serving.loaders import estimate_tokens, load_csv, load_jsonl, load_sharegpt
from paperlab.serving.workload import workload


def turn(who, text):
    return {"from": who, "value": text}


GOOD = [
    {"id": "a", "conversations": [turn("human", "one two three"), turn("gpt", "four"), turn("human", "more")]},
    {"id": "b", "conversations": [turn("system", "be brief"), turn("user", "hi"), turn("assistant", "hello you")]},
    {"id": "c", "conversations": [turn("gpt", "left over from an earlier page")]},
    {"id": "d", "conversations": [turn("human", "x"), turn("gpt", " ")]},
    {"id": "e", "conversations": []},
]


@pytest.fixture
def write(tmp_path):
    def writer(text, name="my trace.json"):
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    return writer


def test_sharegpt_takes_the_first_exchange(write):
    words = load_sharegpt(write(GOOD), count_tokens=lambda text: len(text.split()))
    assert words.rows == ((3, 1), (1, 2))
    assert load_sharegpt(write(GOOD)).rows == ((4, 1), (1, 3))
    assert len(workload(words, rate_per_s=1.0, requests=10)) == 10


def test_estimate():
    assert estimate_tokens("") == 1
    assert estimate_tokens("w " * 75) == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ({}, "list of conversations"),
        ([{"id": "a"}], "row 0: conversations"),
        ([*GOOD, 7], "row 5: conversations"),
        ([{"conversations": [{"from": "human"}]}], "row 0: value is missing"),
        ([{"conversations": [{"from": 3, "value": "x"}]}], "row 0: from is a int"),
        (GOOD[2:], "none of 3"),
        ([], "none of 0"),
    ],
)
def test_bad_sharegpt(write, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_sharegpt(write(text))
    assert "my trace.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_jsonl_and_csv_agree(write):
    rows = [(10, 2, 0.25), (7, 1, 0.5)]
    keys = ("prompt_tokens", "output_tokens", "arrival_s")
    lines = "\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows) + "\n\n"
    table = "\n".join(",".join(map(str, row)) for row in [keys, *rows])
    left, right = load_jsonl(write(lines, "t.jsonl")), load_csv(write(table, "t.csv"))
    assert left == right
    assert left.rows == ((10, 2), (7, 1))
    assert [request.arrival_s for request in workload(left, arrivals="trace").requests] == [0.25, 0.5]


def test_arrivals_are_optional(write):
    assert load_csv(write("prompt_tokens,output_tokens\n3,4\n", "t.csv")).arrivals_s is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,4,1", "row 1: prompt_tokens is '0'"),
        ("3,,1", "row 1: output_tokens is ''"),
        ("3", "row 1: output_tokens is None"),
        ("3,4.5,1", "row 1: output_tokens is '4.5'"),
        ("3,1e999,1", "row 1: output_tokens"),
        ("3,4,-1", "row 1: arrival_s is '-1'"),
        ("3,4,nan", "row 1: arrival_s is 'nan'"),
        ("3,4,1,9", "row 1: unknown field 'None'"),
        ("", "no rows"),
    ],
)
def test_bad_csv(write, row, message):
    with pytest.raises(ValueError, match=message):
        load_csv(write(f"prompt_tokens,output_tokens,arrival_s\n{row}\n", "t.csv"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "row 2: it holds a list"),
        ("{", "row 2: not JSON"),
        ('{"prompt_tokens": true, "output_tokens": 1}', "row 2: prompt_tokens is True"),
        ('{"prompt_tokens": 3, "outputs": 1}', "row 2: unknown field 'outputs'"),
        ('{"prompt_tokens": 3, "output_tokens": 1, "arrival_s": 0}', "row 2: arrival_s: give one in every row"),
    ],
)
def test_bad_jsonl(write, line, message):
    good = '{"prompt_tokens": 3, "output_tokens": 4}'
    with pytest.raises(ValueError, match=message):
        load_jsonl(write(f"{good}\n{line}\n", "t.jsonl"))
