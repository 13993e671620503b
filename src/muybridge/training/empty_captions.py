"""Batches that hold the empty caption too, for what a model says without a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muybridge.training.data import Batch, BatchSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class WithEmptyCaption:
    """Batches with `empty_ids` and `empty_mask` `[b, n]`, as long as `input_ids`."""

    def __init__(self, source: BatchSource, tokenizer: PreTrainedTokenizerBase) -> None:
        """`tokenizer` is the one that the captions of `source` went through."""
        self.source = source
        self.tokenizer = tokenizer

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`."""
        batch = self.source(index)
        count, length = batch["input_ids"].shape
        tokens = self.tokenizer([""], padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return {
            **batch,
            "empty_ids": tokens.input_ids.expand(count, -1),
            "empty_mask": tokens.attention_mask.expand(count, -1),
        }
