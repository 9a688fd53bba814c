from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import Tensor

from sparse_encoder.kernels import max_projection
from sparse_encoder.kernels.tiles import CPU_NARROW_TILING, CPU_TILING, term_slices, text_slices

B, T, E, V = 2, 5, 12, 17


def dense(hidden: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)  # (B, T, V)
    return logits.masked_fill(~mask.bool().unsqueeze(2), float("-inf")).amax(dim=1)


def batch(
    dtype: torch.dtype = torch.float64, *, terms: int = V, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, T, E, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(terms, E, generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(terms, generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 0, 1]])
    return hidden, weight, bias, mask


def test_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    largest = max_projection(hidden, weight, torch.tensor([0.5, -3.0, 0.0]), torch.tensor([[1, 1, 0]]))
    assert largest.tolist() == [[1.5, -1.0, -1.0]]


@pytest.mark.parametrize("terms", [1, V, 1000])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_dense_maximum_over_many_tiles(terms: int, training: bool) -> None:
    hidden, weight, bias, mask = batch(terms=terms)
    result = max_projection(hidden.requires_grad_(training), weight, bias, mask)
    torch.testing.assert_close(result, dense(hidden, weight, bias, mask), rtol=0, atol=1e-12)
    assert result.requires_grad is training


def test_texts_beyond_one_tile_are_grouped() -> None:
    texts, tokens = 7, CPU_TILING.tokens // 3
    hidden = torch.randn(texts, tokens, 3)
    weight = torch.randn(11, 3)
    mask = torch.rand(texts, tokens) > 0.5
    assert len(text_slices(texts, tokens, CPU_TILING)) == 3
    torch.testing.assert_close(max_projection(hidden, weight, None, mask), dense(hidden, weight, None, mask))


def test_gradient_check_with_bias_and_holes_in_the_mask() -> None:
    hidden, weight, bias, mask = batch()
    inputs = (hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w, b: max_projection(h, w, b, mask), inputs)


@pytest.mark.parametrize("terms", [V, 1000])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_gradients_equal_the_dense_ones_for_any_upstream_gradient(terms: int, share: float) -> None:
    tensors = batch(terms=terms)
    mask = tensors[3]
    upstream = torch.randn(B, terms, dtype=torch.float64) * (torch.rand(B, terms) < share)
    gradients = []
    for function in (max_projection, dense):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors[:3]]
        function(*inputs, mask).backward(upstream)
        gradients.append([tensor.grad for tensor in inputs])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_only_what_needs_a_gradient_gets_one() -> None:
    hidden, weight, bias, mask = batch()
    max_projection(hidden, weight.requires_grad_(), bias, mask).sum().backward()
    assert hidden.grad is None
    assert weight.grad is not None
    hidden.requires_grad_()
    with torch.no_grad():
        assert not max_projection(hidden, weight, bias, mask).requires_grad


def test_a_tie_goes_to_the_first_token() -> None:
    hidden = torch.ones(1, 4, 3, requires_grad=True)
    max_projection(hidden, torch.ones(2, 3), None, torch.tensor([[0, 1, 1, 1]])).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[0].tolist() == [[0.0] * 3, [2.0] * 3, [0.0] * 3, [0.0] * 3]


def test_a_text_of_padding_is_minus_infinity_without_gradient() -> None:
    hidden, weight, bias, _ = batch()
    mask = torch.tensor([[0] * T, [1] * T])
    hidden.requires_grad_(), weight.requires_grad_()
    result = max_projection(hidden, weight, bias, mask)
    assert torch.equal(result[0], torch.full((V,), -math.inf, dtype=torch.float64))
    torch.relu(result).sum().backward()
    result = max_projection(hidden, weight, bias, mask)
    result.backward(torch.ones_like(result))
    assert hidden.grad is not None and weight.grad is not None
    assert not hidden.grad[0].any()
    assert torch.isfinite(weight.grad).all()


def test_nothing_in_the_padding_matters() -> None:
    hidden, weight, bias, mask = batch()
    results = []
    for filler in (0.0, math.nan, 1e9):
        filled = hidden.masked_fill(~mask.bool().unsqueeze(2), filler).requires_grad_()
        result = max_projection(filled, weight, bias, mask)
        result.sum().backward()
        results.append((result.detach(), filled.grad))
    for result, gradient in results[1:]:
        assert torch.equal(result, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_give_float32_results_and_gradients_summed_in_float32(dtype: torch.dtype) -> None:
    texts = 300
    hidden = torch.full((texts, 1, 2), 1.0, dtype=dtype, requires_grad=True)
    weight = torch.tensor([[1.0, 0.5]], dtype=dtype, requires_grad=True)
    result = max_projection(hidden, weight, None, torch.ones(texts, 1))
    assert result.dtype == torch.float32
    assert torch.equal(result, torch.full((texts, 1), 1.5))
    result.sum().backward()
    assert weight.grad is not None and hidden.grad is not None
    assert weight.grad.dtype == dtype
    assert weight.grad.tolist() == [[300.0, 300.0]]  # counting in bfloat16 would stop at 256
    assert torch.equal(hidden.grad[7, 0], weight.detach()[0])


def test_autocast_computes_in_its_dtype_and_leaves_float32_gradients() -> None:
    hidden, weight, bias, mask = batch(torch.float32)
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = max_projection(hidden, weight, bias, mask)
    expected = dense(hidden.bfloat16(), weight.detach().bfloat16(), None, mask).float() + bias
    torch.testing.assert_close(result.detach(), expected, rtol=0, atol=0)
    result.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("hidden", "weight", "bias", "mask", "message"),
    [
        ((B, T, E), (V, E + 1), None, (B, T), "hidden must be"),
        ((B * T, E), (V, E), None, (B, T), "hidden must be"),
        ((B, T, E), (V, E), None, (T, B), "mask must be"),
        ((B, T, E), (V, E), (V + 1,), (B, T), "bias must be"),
        ((B, 0, E), (V, E), None, (B, 0), "at least one token"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    hidden: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None, mask: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        max_projection(
            torch.zeros(hidden), torch.zeros(weight), None if bias is None else torch.zeros(bias), torch.ones(mask)
        )


def test_two_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="one dtype"):
        max_projection(torch.zeros(B, T, E), torch.zeros(V, E, dtype=torch.float64), None, torch.ones(B, T))


def test_no_texts_give_no_rows() -> None:
    assert max_projection(torch.zeros(0, T, E), torch.zeros(V, E), None, torch.ones(0, T)).shape == (0, V)


def test_tiles_cover_the_vocabulary_once_in_nearly_equal_widths() -> None:
    for terms in (1, 16, 255, 256, 257, 3059, 30_522, 250_002):
        slices = term_slices(terms, CPU_NARROW_TILING)
        assert [piece.start for piece in slices[1:]] == [piece.stop for piece in slices[:-1]]
        assert (slices[0].start, slices[-1].stop) == (0, terms)
        assert all(piece.stop - piece.start <= CPU_NARROW_TILING.terms for piece in slices)


@pytest.mark.parametrize(
    ("width", "terms", "lengths"),
    [(384, 1338, (16, 32, 48, 128, 256)), (312, 1000, (16, 96)), (32, 777, (16, 48)), (100, 3059, (16, 32))],
)
def test_a_row_has_the_same_bytes_in_any_batch_at_any_place_with_any_threads(
    width: int, terms: int, lengths: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(terms, width, generator=generator)
    threads = torch.get_num_threads()
    try:
        for tokens in lengths:
            hidden = torch.randn(64, tokens, width, generator=generator)
            mask = torch.arange(tokens) < torch.randint(1, tokens + 1, (64, 1), generator=generator)
            torch.set_num_threads(1)
            alone = torch.cat([max_projection(hidden[[i]], weight, None, mask[[i]]) for i in range(64)])
            for num_threads in (1, 2):
                torch.set_num_threads(num_threads)
                for size in (1, 2, 3, 7, 32, 64):
                    rows = slice(64 - size, 64)
                    together = max_projection(hidden[rows], weight, None, mask[rows])
                    assert torch.equal(together, alone[rows]), (tokens, num_threads, size)
    finally:
        torch.set_num_threads(threads)


def test_it_can_run_from_several_threads_at_once() -> None:
    hidden, weight, bias, mask = batch(torch.float32, terms=1000)
    expected = max_projection(hidden, weight, bias, mask)
    results: list[Tensor] = []
    workers = [
        threading.Thread(target=lambda: results.append(max_projection(hidden, weight, bias, mask))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    assert all(torch.equal(result, expected) for result in results)
