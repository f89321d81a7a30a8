"""What a small language model writes: reproducible, ended where it ends, the same alone and beside longer prompts."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from worker.data.text.language import Framing, RowStyle, TokenRows, answered, prompts_of
from worker.models.generation import Decoding, write

FRAME = Framing(start=(), end=1, pad=0)
SAMPLED = Decoding(max_new_tokens=6, temperature=0.9)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    # Far from even probabilities, so that a difference shows.
    return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.5, bos_token_id=1, eos_token_id=1, pad_token_id=0))


def prompts(*texts: list[int]) -> tuple[Tensor, Tensor]:
    rows = answered(texts, [[9]] * len(texts), FRAME, RowStyle(32))
    return prompts_of(rows.ids, rows.mask, FRAME, prompt_tokens=4, longest=20)


def written(rows: TokenRows) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(rows.ids, rows.mask, strict=True)]


def test_the_global_generator_alone_decides_what_is_drawn(model: Any) -> None:
    texts = prompts([5, 6, 7], [8])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, after = write(model, *texts, FRAME, SAMPLED), torch.get_rng_state()
    other = write(model, *texts, FRAME, SAMPLED)
    torch.set_rng_state(state)
    again = write(model, *texts, FRAME, SAMPLED)
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(torch.get_rng_state(), after)
    assert written(other) != written(first)


def test_prompts_stay_and_the_loss_is_on_what_was_written(model: Any) -> None:
    rows = write(model, *prompts([5, 6, 7], [8]), FRAME, SAMPLED)
    assert rows.ids[0, :3].tolist() == [5, 6, 7]
    assert rows.ids[1, 0].item() == 8
    assert not bool(rows.mask[0, :3].any() | rows.mask[1, :1].any())
    assert all(1 <= len(tokens) <= 6 and 1 not in tokens[:-1] for tokens in written(rows))


@pytest.mark.parametrize("num_beams", [1, 3])
def test_beside_a_longer_prompt_the_likeliest_text_is_what_it_is_alone(model: Any, num_beams: int) -> None:
    decoding = Decoding(max_new_tokens=6, temperature=None, num_beams=num_beams)
    together = written(write(model, *prompts([5, 6, 7, 8, 9], [8]), FRAME, decoding))
    alone = [written(write(model, *prompts(text), FRAME, decoding))[0] for text in ([5, 6, 7, 8, 9], [8])]
    assert together == alone


def test_one_beam_takes_the_likeliest_token_each_time(model: Any) -> None:
    (tokens,) = written(write(model, *prompts([5, 6]), FRAME, Decoding(max_new_tokens=4, temperature=None)))
    ids = torch.tensor([[5, 6]])
    model.eval()
    for token in tokens:
        with torch.no_grad():
            expected = int(model(ids).logits[0, -1].argmax())
        assert token == expected
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_a_text_ends_with_its_end_and_nothing_behind_it_counts(model: Any) -> None:
    model.lm_head = torch.nn.Linear(16, 100)
    with torch.no_grad():
        model.lm_head.bias[1] = 1e4
    rows = write(model, *prompts([5, 6, 7], [8]), FRAME, SAMPLED)
    assert written(rows) == [[1], [1]]
    assert rows.ids.tolist() == [[5, 6, 7, 1], [8, 1, 0, 0]]


def test_low_temperatures_draw_the_likeliest_token(model: Any) -> None:
    texts = prompts([5, 6, 7], [8])
    cold = write(model, *texts, FRAME, Decoding(max_new_tokens=6, temperature=1e-3))
    likeliest = write(model, *texts, FRAME, Decoding(max_new_tokens=6, temperature=None))
    assert written(cold) == written(likeliest)


def test_a_models_own_settings_and_its_dropout_take_no_part_and_stay(model: Any) -> None:
    texts = prompts([5, 6, 7], [8])
    torch.manual_seed(3)
    expected = write(model, *texts, FRAME, SAMPLED)
    model.generation_config.update(top_k=1, repetition_penalty=5.0, min_new_tokens=6, max_length=4)
    own = model.generation_config.to_dict()
    model.train()
    torch.manual_seed(3)
    assert torch.equal(write(model, *texts, FRAME, SAMPLED).ids, expected.ids)
    assert model.generation_config.to_dict() == own
    assert model.training
