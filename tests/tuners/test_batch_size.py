"""How long rows are and how many make a step, where nobody says so: from the documents, the model and the devices."""

from __future__ import annotations

import numpy as np
import pytest
from toys import documents_of

from kerasgen.errors import TuneArgumentError
from kerasgen.tuners import batch_size
from kerasgen.tuners.full import FullTuner
from kerasgen.tuners.lora import LoraTuner

pytestmark = pytest.mark.one_backend


def lengths(median: float, count: int = 3_000, spread: float = 0.7) -> np.ndarray:
    """Targets of documents as texts have them: many short ones and a long tail."""
    return np.random.default_rng(0).lognormal(np.log(median), spread, count).astype(np.int64) + 1


POEMS, POSTS, ARTICLES = lengths(50), lengths(280, 900), lengths(1_300, 1_500, 0.4)


def sized(targets: np.ndarray, *, longest: int = 512, packs: bool = True, ways: int = 1, gpu: bool = False, **given):
    return batch_size.sized(FullTuner(**given), targets, longest=longest, packs=packs, ways=ways, gpu=gpu)


@pytest.mark.parametrize("targets", [POEMS, POSTS, ARTICLES], ids=["poems", "posts", "articles"])
@pytest.mark.parametrize(
    "given", [{}, {"batch_size": 16}, {"sequence_length": 256}, {"gradient_accumulation_steps": 4}]
)
def test_a_step_takes_no_more_tokens_than_a_learning_rate_is_meant_for(targets: np.ndarray, given: dict) -> None:
    settings, reasons = sized(targets, **given)
    tokens = settings.sequence_length * settings.batch_size * settings.gradient_accumulation_steps
    assert 1_000 <= tokens <= 2_200
    assert reasons.keys() == {"sequence_length", "batch_size"} - given.keys()


def test_a_row_holds_nearly_all_short_documents_whole_and_no_more_than_the_model_sees() -> None:
    assert sized(POEMS)[0].sequence_length == 192
    assert (POEMS <= 192).mean() >= 0.95 > (POEMS <= 128).mean()
    assert sized(ARTICLES)[0].sequence_length == 512
    assert sized(ARTICLES, longest=100)[0].sequence_length == 100
    assert sized(np.asarray([3, 4]), longest=8)[0].sequence_length == 8


def test_what_is_asked_for_is_kept() -> None:
    settings, reasons = sized(ARTICLES, batch_size=16, sequence_length=512)
    assert (settings.batch_size, settings.sequence_length) == (16, 512)
    assert not reasons
    assert sized(ARTICLES, batch_size=64)[0].batch_size == 64
    assert sized(ARTICLES, batch_size=64)[0].sequence_length == batch_size.SHORTEST_CUT


def test_a_small_corpus_still_takes_many_steps() -> None:
    few = lengths(50, 200)
    settings, _ = sized(few)
    rows_of_the_run = few.sum() / settings.sequence_length
    assert 30 <= rows_of_the_run / settings.batch_size <= 100  # as many as steps of 256 tokens make
    assert sized(few, epochs=50)[0].batch_size > settings.batch_size


def test_rows_without_packing_are_counted_by_the_tokens_that_they_hold() -> None:
    settings, _ = sized(POEMS, packs=False, epochs=10)
    assert settings.batch_size * np.minimum(POEMS, settings.sequence_length).mean() == pytest.approx(2_048, rel=0.1)


@pytest.mark.parametrize("ways", [1, 3, 8])
def test_devices_share_a_batch_evenly(ways: int) -> None:
    settings, _ = sized(ARTICLES, ways=ways)
    assert settings.batch_size % ways == 0


def test_a_gpu_takes_more_tokens_at_once() -> None:
    assert sized(ARTICLES, gpu=True)[0].batch_size == 16


def test_no_document_and_documents_without_a_token_are_no_reason_to_fail() -> None:
    for targets in (np.zeros(0, np.int64), np.zeros(3, np.int64)):
        assert sized(targets)[0].batch_size >= 1


def test_the_settings_are_checked_and_none_means_chosen() -> None:
    for name in ("batch_size", "sequence_length", "validation_tokens"):
        assert getattr(FullTuner(**{name: None}), name) is None
        with pytest.raises(TuneArgumentError, match=f"{name} must be a whole number of at least 1. Received: 0"):
            FullTuner(**{name: 0})
    assert FullTuner().vocabulary is LoraTuner().vocabulary is None


class TestValidations:
    def held_out(self, count: int = 400):
        return documents_of([range(n, n + 5 + 20 * (n % 7)) for n in range(count)])

    def test_they_are_bounded_and_score_the_same_documents_each_time(self) -> None:
        from kerasgen.tuners.held_out import sampled

        held_out = self.held_out()
        found, again = sampled(held_out, 1_000), sampled(held_out, 1_000)
        assert 900 < found.targets <= 1_000
        assert found.digest() == again.digest()
        mean = held_out.characters.mean()
        assert found.characters.mean() == pytest.approx(mean, rel=0.25)  # long ones and short ones, as they come
        assert len({len(ids) for ids in found}) == 7
        whole = {tuple(ids.tolist()) for ids in held_out}
        assert all(tuple(ids.tolist()) in whole for ids in found)

    def test_none_and_a_bound_that_holds_all_take_all(self) -> None:
        from kerasgen.tuners.held_out import sampled

        held_out = self.held_out(20)
        assert sampled(held_out, None) is held_out
        assert sampled(held_out, held_out.targets) is held_out

    def test_a_document_longer_than_the_bound_is_taken_as_far_as_it_goes(self) -> None:
        from kerasgen.tuners.held_out import sampled

        book = documents_of([range(9_000)])
        found = sampled(book, 100)
        assert found.targets == 100
        assert found[0].tolist() == book[0][:101].tolist()
        assert found.characters[0] == pytest.approx(book.characters[0] * 100 / book.targets, abs=1)

    @pytest.mark.parametrize("count", range(1, 9))
    def test_few_tokens_before_a_document_that_is_too_long_are_not_all(self, count: int) -> None:
        from kerasgen.tuners.held_out import sampled

        books = documents_of([range(n, n + (20 if n % 2 else 9_000)) for n in range(1, count + 2)])
        found = sampled(books, 1_000)
        assert 500 < found.targets <= 1_000
        whole = {tuple(ids.tolist()) for ids in books}
        assert sum(tuple(ids.tolist()) not in whole for ids in found) == 1

    def test_the_standard_error_is_what_resampling_the_documents_gives(self) -> None:
        """Bootstrap: the spread of the figure over samples drawn from the documents with replacement."""
        from kerasgen.models.scoring import Scores
        from kerasgen.tuners.held_out import validation

        rng = np.random.default_rng(0)
        characters = rng.integers(20, 200, 300)
        nll = characters * rng.normal(3.0, 0.5, 300) + rng.normal(0, 5, 300)
        scores = Scores(nll=nll, tokens=characters + 1, characters=characters)
        drawn = rng.integers(0, 300, (4_000, 300))
        resampled = nll[drawn].sum(1) / np.log(2) / characters[drawn].sum(1)
        found = validation(7, scores)
        assert found.standard_error == pytest.approx(resampled.std(), rel=0.1)
        assert (found.step, found.documents, found.tokens) == (7, 300, int(characters.sum()) + 300)
        assert validation(0, Scores(nll[:1], characters[:1], characters[:1])).standard_error is None
