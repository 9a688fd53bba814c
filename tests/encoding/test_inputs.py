from __future__ import annotations

import numpy as np
import pytest

from sparse_encoder.encoding.inputs import check_positive, is_singular_input, lengths_of_call, read_inputs


class Column:
    """Iterates and knows its length, like a column of a dataset; it is no Sequence."""

    def __iter__(self):  # noqa: ANN204
        return iter(["a", "b"])


@pytest.mark.parametrize(
    "inputs", [["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], dtype=object), Column()]
)
def test_collections_of_texts(inputs: object) -> None:
    assert read_inputs(inputs) == (["a", "b"], False, None)
    assert all(type(text) is str for text in read_inputs(inputs).texts)
    assert not is_singular_input(inputs)


def test_one_text() -> None:
    assert read_inputs("a") == (["a"], True, None)
    assert is_singular_input("a")
    assert read_inputs([]) == ([], False, None)


def test_tasks_in_the_inputs() -> None:
    assert read_inputs([{"query": "a"}, {"query": "b"}], with_tasks=True) == (["a", "b"], False, "query")
    assert read_inputs({"document": "a"}, with_tasks=True) == (["a"], True, "document")
    assert read_inputs(["a"], task="query") == (["a"], False, "query")
    with pytest.raises(ValueError, match=r"of one task, got \['document', 'query'\]"):
        read_inputs([{"query": "a"}, {"document": "b"}], with_tasks=True)
    with pytest.raises(ValueError, match=r"of one task, got \['document', 'query'\]"):
        read_inputs([{"query": "a"}], task="document", with_tasks=True)
    with pytest.raises(ValueError, match=r"inputs\[0\] must map one task to a text, got the keys \['a', 'b'\]"):
        read_inputs({"a": "x", "b": "y"}, with_tasks=True)
    with pytest.raises(TypeError, match=r"inputs\[0\] must be a string, got int"):
        read_inputs([{"query": 3}], with_tasks=True)


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None])
def test_what_is_no_positive_integer_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        check_positive("batch_size", value)  # type: ignore[arg-type]


def test_a_positive_integer_passes() -> None:
    assert check_positive("batch_size", 10**9) == 10**9
    assert type(check_positive("batch_size", np.int64(3))) is int  # type: ignore[arg-type]


def test_lengths_of_a_call() -> None:
    assert lengths_of_call({}) == (None, False)
    assert lengths_of_call({"text": {"max_length": 9, "padding": "longest"}}) == (9, False)
    given = {"common": {"padding": "max_length"}, "text": {"max_length": 9}}
    assert lengths_of_call(given) == (9, True)
    assert given["common"] == {"padding": "max_length"}
    both = {"common": {"padding": "max_length", "max_length": 20}, "text": {"padding": "longest"}}
    assert lengths_of_call(both) == (20, False)  # text goes before common
    assert lengths_of_call({"common": both["text"], "text": both["common"]}) == (20, True)
    for wrong in (3, None, ["max_length"], "longest"):
        with pytest.raises(TypeError, match=r"processing_kwargs\['text'\] must be a mapping of options, got .*; give"):
            lengths_of_call({"text": wrong})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="processing_kwargs must be a mapping of mappings, got 3; give"):
        lengths_of_call(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="padding in processing_kwargs must be one of"):
        lengths_of_call({"text": {"padding": "to 9"}})
