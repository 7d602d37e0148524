"""A recurrent network on the raw events of a session: what a sequence tells without features.

A GRU (Cho et al. 2014) reads, event by event, the name, hashed page, item and category as embeddings, and the gap, age,
price, value, hour, weekday, channel, device and consent as numbers; a small layer on its state gives the score after
each event. Rows at the idle checkpoints take the state of the latest event and the silence. It learns from these rows
at their true rate, stops by the first inner fold's later rows, and is then fitted on the whole past for as many epochs.
Earlier sessions of a visitor are not in a session's events, so it does not know them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from features.events import CHANNELS, CONSENT_LINK, DEVICES, EVENT_NAMES
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import Head
from training.inner import inner_folds
from training.losses import TWEEDIE_POWER, score_loss

if TYPE_CHECKING:
    import torch

# Events that a score is made of at least, where the session has as many: longer sessions are read in overlapping parts.
WINDOW: Final = 48
BUCKETS: Final = 512
WIDTH: Final = 8
HIDDEN: Final = 48
MOST_EPOCHS: Final = 15
PATIENCE: Final = 2
BATCH: Final = 48
LEARNING_RATE: Final = 2e-3
WEIGHT_DECAY: Final = 1e-2
DROPOUT: Final = 0.2
SEED: Final = 7
THREADS: Final = 2
DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Histories:
    """The events of all sessions as a network takes them. n events.

    numbers: float32 (n, K); codes: int64 (n, 4), name, then buckets of page, item and category, 0 for none;
    begin: int64 (sessions,), where each session begins.
    """

    numbers: np.ndarray
    codes: np.ndarray
    begin: np.ndarray


def histories_of(events: pd.DataFrame) -> Histories:
    """Encode sorted events with `session_index`."""
    session, time = events["session_index"].to_numpy(), events["time"].to_numpy()
    begin = np.flatnonzero(np.append(True, session[1:] != session[:-1]))
    first = np.repeat(begin, np.diff(np.append(begin, len(session))))
    clock = events["time"].groupby(session).cummax().to_numpy()
    gap = np.where(np.arange(len(time)) == first, 0, np.diff(clock, prepend=clock[:1]))
    day = 2 * np.pi * ((time + events["utc_offset"].to_numpy() * 60_000) % DAY_MS) / DAY_MS
    weekday = ((time + events["utc_offset"].to_numpy() * 60_000) // DAY_MS + 3) % 7
    numbers = [
        np.log1p(gap / 1000) / 4,
        np.log1p((clock - time[first]) / 1000) / 6,
        np.log1p(np.arange(len(time)) - first) / 3,
        np.log1p(events["price"].to_numpy()) / 4,
        np.log1p(events["value"].to_numpy()) / 4,
        np.sin(day),
        np.cos(day),
        *(weekday == place for place in range(7)),
        events["interactive"].to_numpy(),
        events["consent"].to_numpy() & CONSENT_LINK > 0,
        *(events["channel"].to_numpy() == place for place in range(len(CHANNELS))),
        *(events["device"].to_numpy() == place for place in range(len(DEVICES))),
    ]
    hashed = [_bucket(events[name].to_numpy()) for name in ("page", "item", "category")]
    return Histories(
        numbers=np.column_stack(numbers).astype(np.float32),
        codes=np.column_stack([events["name"].to_numpy(np.int64), *hashed]),
        begin=begin,
    )


def _bucket(value: np.ndarray) -> np.ndarray:
    return np.where(value == 0, 0, 1 + (value.view(np.uint64) % np.uint64(BUCKETS - 1)).astype(np.int64))


@dataclass(frozen=True)
class Windows:
    """Parts of sessions, and the rows whose latest event lies in the second half of a part (in the first, too, where it
    begins the session). w parts.

    start, length: int64 (w,), events; first, last: int64 (w,), rows from and to; event: int64 (rows,), position of each
    row's latest event; row: int64 (rows,), position in the slice.
    """

    start: np.ndarray
    length: np.ndarray
    first: np.ndarray
    last: np.ndarray
    event: np.ndarray
    row: np.ndarray

    def batches(self, order: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Places of parts, in the given order but parts of about equal length together."""
        for begin in range(0, len(order), size * 20):
            near = order[begin : begin + size * 20]
            near = near[np.argsort(self.length[near], kind="stable")]
            pieces = [near[at : at + size] for at in range(0, len(near), size)]
            yield from (pieces[place] for place in np.random.default_rng(begin).permutation(len(pieces)))


def windows_of(histories: Histories, rows: Slice) -> Windows:
    """Cut the sessions of some rows into parts of at most 2 * WINDOW events that overlap by half."""
    event = histories.begin[rows.session] + rows.prefix - 1
    order = np.lexsort((rows.idle_ms, event))
    event = event[order]
    begin = histories.begin[rows.session[order]]
    part = (event - begin) // WINDOW
    new = np.append(True, (begin[1:] != begin[:-1]) | (part[1:] != part[:-1]))[: len(event)]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(event))[: len(first)]
    start = begin[first] + np.maximum(part[first] - 1, 0) * WINDOW
    return Windows(start, event[last - 1] - start + 1, first, last, event, order)


def gru(past: Slice, test: Slice, head: Head, settings: TrainingSettings, *, histories: Histories) -> np.ndarray:
    """Scores of the test, float64 (rows,).

    Raises
    ------
    ImportError
        PyTorch is not there: names the extra.
    """
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("the recurrent network needs PyTorch: pip install 'lotse[rivals]'") from error
    torch.set_num_threads(THREADS)
    epochs = MOST_EPOCHS // 2
    folds = inner_folds(past, settings)
    if folds:
        learned, later = past.take(folds[0].train), past.take(folds[0].valid)
        _, epochs = _fit(histories, learned, head, MOST_EPOCHS, later)
    network, _ = _fit(histories, past, head, epochs, None)
    raw = network.raw(histories, test)
    return np.exp(raw) if head.task == "value" else 1 / (1 + np.exp(-raw))


class Network:
    """The network: float32 numbers and codes of events in, the raw score after each event out.

    task: "binary", whose score is the logit, or "value", the logarithm of the amount; mean: of the learned answers.
    """

    def __init__(self, histories: Histories, task: str, mean: float) -> None:
        from torch import nn  # noqa: PLC0415

        self.task = task
        self.mean = max(mean, 1e-6)
        sizes = (len(EVENT_NAMES), *(BUCKETS for _ in range(histories.codes.shape[1] - 1)))
        embeddings = nn.ModuleList([nn.Embedding(size, WIDTH) for size in sizes])
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.1)  # type: ignore[arg-type]
        self.module: Any = nn.ModuleDict(
            {
                "embeddings": embeddings,
                "dropout": nn.Dropout(DROPOUT),
                "gru": nn.GRU(WIDTH * len(sizes) + histories.numbers.shape[1], HIDDEN, batch_first=True),
                "top": nn.Sequential(
                    nn.Dropout(DROPOUT), nn.Linear(HIDDEN + 2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
                ),
            }
        )

    def margins(
        self, histories: Histories, windows: Windows, chosen: np.ndarray, idle_ms: np.ndarray
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Raw scores of the rows of some parts, float32 (r,), and the positions of these rows, int64 (r,)."""
        import torch  # noqa: PLC0415

        start, length = windows.start[chosen], windows.length[chosen]
        # what lies beyond a shorter part's end is read after all its rows
        at = np.minimum(start[:, None] + np.arange(length.max()), len(histories.codes) - 1)
        codes = torch.from_numpy(histories.codes[at])
        known = [embed(codes[..., place]) for place, embed in enumerate(self.module["embeddings"])]
        inputs = torch.cat([*known, torch.from_numpy(histories.numbers[at])], dim=-1)
        states, _ = self.module["gru"](self.module["dropout"](inputs))
        counts = windows.last[chosen] - windows.first[chosen]
        part = np.repeat(np.arange(len(chosen)), counts)
        places = np.arange(counts.sum()) + np.repeat(windows.first[chosen] - np.cumsum(counts) + counts, counts)
        rows = windows.row[places]
        silence = idle_ms[rows] / 1000
        about = np.column_stack([np.log1p(silence) / 4, silence > 0]).astype(np.float32)
        state = states[torch.from_numpy(part), torch.from_numpy(windows.event[places] - start[part])]
        margin = self.module["top"](torch.cat([state, torch.from_numpy(about)], dim=-1))[:, 0]
        # the network learns what differs from the mean
        odds = self.mean if self.task == "value" else self.mean / (1 - self.mean)
        return margin + float(np.log(odds)), rows

    def loss(self, histories: Histories, windows: Windows, chosen: np.ndarray, rows: Slice) -> torch.Tensor:
        """Loss of the rows of some parts, over the rows that so many parts have on average: log loss, or the Tweedie
        deviance's part that depends on the score. A mean would give rows of short sessions, whose batches have few, too
        large a weight."""
        import torch  # noqa: PLC0415

        margin, at = self.margins(histories, windows, chosen, rows.idle_ms)
        answer = torch.from_numpy(rows.answer[at])
        usual = len(chosen) * len(rows) / len(windows.start)
        if self.task == "binary":
            return torch.nn.functional.binary_cross_entropy_with_logits(margin, answer, reduction="sum") / usual
        # in units of the mean, as a gradient does not know the currency
        relative, answer = margin - float(np.log(self.mean)), answer / self.mean
        power = TWEEDIE_POWER
        deviance = -answer * torch.exp((1 - power) * relative) / (1 - power)
        return (deviance + torch.exp((2 - power) * relative) / (2 - power)).sum() / usual

    def raw(self, histories: Histories, rows: Slice) -> np.ndarray:
        """Raw scores of a slice, float64 (rows,)."""
        import torch  # noqa: PLC0415

        self.module.eval()
        windows = windows_of(histories, rows)
        found = np.zeros(len(rows))
        with torch.no_grad():
            for chosen in windows.batches(np.arange(len(windows.start)), 8 * BATCH):
                margin, at = self.margins(histories, windows, chosen, rows.idle_ms)
                found[at] = margin.numpy()
        return found


def _fit(histories: Histories, rows: Slice, head: Head, most_epochs: int, later: Slice | None) -> tuple[Network, int]:
    """Train for most_epochs, or until the loss on `later` has not fallen for PATIENCE epochs; the best epoch, too."""
    import torch  # noqa: PLC0415

    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    windows = windows_of(histories, rows)
    network = Network(histories, head.task, float(rows.answer.mean()))
    optimiser = torch.optim.AdamW(network.module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, best_loss, best_epoch = copy.deepcopy(network.module.state_dict()), np.inf, 1
    for epoch in range(1, most_epochs + 1):
        network.module.train()
        for chosen in windows.batches(random.permutation(len(windows.start)), BATCH):
            loss = network.loss(histories, windows, chosen, rows)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.module.parameters(), 1.0)
            optimiser.step()
        if later is None:
            continue
        found = score_loss(later.answer, network.raw(histories, later), head.task)
        if found < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(network.module.state_dict()), found, epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    if later is not None:
        network.module.load_state_dict(best)
    return network, best_epoch
