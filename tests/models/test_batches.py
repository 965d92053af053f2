"""A batch has loss on the positions that the recipe asks for, and never on padding."""

from ocl_bench.models.batches import Collator, datapoint
from ocl_bench.models.encoding import Encoded

SHORT, LONG = Encoded((5, 6), (7,)), Encoded((1, 2, 3), (4, 8))


def test_loss_on_all_tokens_leaves_out_padding_and_the_first_token() -> None:
    batch = Collator(pad_id=0, decoder_start=None)([datapoint(one, False, "all") for one in (SHORT, LONG)])
    assert batch["input_ids"].tolist() == [[5, 6, 0, 0], [1, 2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    # position t predicts token t + 1, so that the last token is not among the four that a row has
    assert batch["positions"].tolist() == [0, 1, 4, 5, 6, 7]
    assert batch["targets"].tolist() == [6, 7, 2, 3, 4, 8]


def test_loss_on_completions_leaves_out_prompts() -> None:
    batch = Collator(pad_id=0, decoder_start=None)([datapoint(one, False, "completion") for one in (SHORT, LONG)])
    assert batch["positions"].tolist() == [1, 6, 7]
    assert batch["targets"].tolist() == [7, 4, 8]


def test_a_seq2seq_decoder_starts_from_its_start_token_and_predicts_the_completion() -> None:
    batch = Collator(pad_id=0, decoder_start=9)([datapoint(one, True, "all") for one in (SHORT, LONG)])
    assert batch["input_ids"].tolist() == [[5, 6, 0], [1, 2, 3]]
    assert batch["decoder_input_ids"].tolist() == [[9, 0], [9, 4]]
    assert batch["positions"].tolist() == [0, 2, 3]
    assert batch["targets"].tolist() == [7, 4, 8]


def test_nothing_is_masked_where_nothing_is_padded() -> None:
    assert "attention_mask" not in Collator(0, None)([datapoint(SHORT, False, "all")] * 3)
