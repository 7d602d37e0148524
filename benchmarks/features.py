"""Rows per second of `features.batch` against the same prefix features written for DuckDB and Polars.

    python -m benchmarks.features [--events 5000000] [--runs 3]

All three get the same events in the order of time as a log has them, in memory in the form each likes best (pandas,
DuckDB's own table, Polars), use both cores, and give one row an event in memory. The values of all three are compared
before anything is timed. DuckDB and Polars keep the memory of one run for the next by their allocators; Lotse does by
`out=`, and the line "new memory" is without it. Only features that SQL can express take part; approximate (`distinct`)
and NaN-masked ones do not.
"""

from __future__ import annotations

import argparse

import duckdb
import numpy as np
import pandas as pd
import polars as pl

from benchmarks.measure import alternate, console, median, report
from features.batch import build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.events import (
    ADD_TO_CART,
    ADD_TO_WISHLIST,
    BEGIN_CHECKOUT,
    PAGE_VIEW,
    PURCHASE,
    REMOVE_FROM_CART,
    SEARCH,
    VIEW_ITEM,
)
from simulation.shop import simulate

NAMES = [
    "events",
    "interactive_events",
    "page_views",
    "item_views",
    "searches",
    "cart_adds",
    "cart_removes",
    "checkouts",
    "wishlist_adds",
    "purchases",
    "item_view_share",
    "same_item_repeats",
    "duration_seconds",
    "last_gap_seconds",
    "longest_gap_seconds",
    "mean_gap_seconds",
    "mean_item_dwell_seconds",
    "seconds_since_cart",
    "seconds_since_item",
    "idle_seconds",
    "price_viewed_max",
    "price_viewed_last",
    "price_viewed_mean",
    "entry_channel",
    "entry_event",
    "device_kind",
    "last_event",
    "second_last_event",
    "third_last_event",
    "local_hour",
    "local_weekday",
]
TIMEOUT_MS = 1_800_000
COUNTED = {
    "page_views": PAGE_VIEW,
    "item_views": VIEW_ITEM,
    "searches": SEARCH,
    "cart_adds": ADD_TO_CART,
    "cart_removes": REMOVE_FROM_CART,
    "checkouts": BEGIN_CHECKOUT,
    "wishlist_adds": ADD_TO_WISHLIST,
    "purchases": PURCHASE,
}
KEYS = ["visitor", "time", "events"]


def duckdb_query() -> str:
    """Window functions over the session so far; the session by a running sum of the gaps that end one."""
    counts = ",\n".join(f"count(*) filter (name = {code}) over so_far as {name}" for name, code in COUNTED.items())
    return f"""
    with gaps as (
        select *, lag(time) over (partition by visitor order by time, seq) as before from events
    ), numbered as (
        select *, sum(case when before is null or time - before > {TIMEOUT_MS} then 1 else 0 end)
            over (partition by visitor order by time, seq rows unbounded preceding) as session_number from gaps
    ), inside as (
        select *, coalesce(time - lag(time) over steps, 0) as gap, lag(name) over steps as name_before,
            item != 0 and item = coalesce(lag(item) over steps, 0) as same_item
        from numbered window steps as (partition by visitor, session_number order by time, seq)
    ), folded as (
        select visitor, time, utc_offset, gap, device,
            sum(same_item::int) over so_far as same_item_repeats,
            coalesce(sum(gap) filter (name_before = {VIEW_ITEM}) over so_far, 0) as item_dwell,
            max(time) filter (name = {ADD_TO_CART}) over so_far as last_cart,
            max(time) filter (name = {VIEW_ITEM}) over so_far as last_item,
            coalesce(last_value(case when name = {VIEW_ITEM} then price end ignore nulls) over so_far, 0)
                as price_viewed_last,
            count(*) over so_far as events,
            sum(interactive) over so_far as interactive_events,
            {counts},
            first_value(time) over so_far as started,
            max(gap) over so_far as longest,
            coalesce(max(price) filter (name = {VIEW_ITEM}) over so_far, 0) as price_viewed_max,
            coalesce(sum(price) filter (name = {VIEW_ITEM}) over so_far, 0) as priced,
            count(*) filter (name = {VIEW_ITEM} and price > 0) over so_far as priced_views,
            first_value(channel) over so_far as entry_channel,
            first_value(name) over so_far as entry_event,
            name as last_event,
            coalesce(lag(name, 1) over steps, 0) as second_last_event,
            coalesce(lag(name, 2) over steps, 0) as third_last_event
        from inside
        window steps as (partition by visitor, session_number order by time, seq),
            so_far as (partition by visitor, session_number order by time, seq rows unbounded preceding)
    )
    select visitor, time, events::float as events, interactive_events::float as interactive_events,
        {", ".join(f"{name}::float as {name}" for name in COUNTED)},
        (item_views / events)::float as item_view_share,
        same_item_repeats::float as same_item_repeats,
        (item_dwell / 1000 / greatest(item_views, 1))::float as mean_item_dwell_seconds,
        coalesce((time - last_cart) / 1000, -1)::float as seconds_since_cart,
        coalesce((time - last_item) / 1000, -1)::float as seconds_since_item,
        0::float as idle_seconds, price_viewed_last::float as price_viewed_last, device::float as device_kind,
        ((time - started) / 1000)::float as duration_seconds,
        (gap / 1000)::float as last_gap_seconds,
        (longest / 1000)::float as longest_gap_seconds,
        ((time - started) / 1000 / greatest(events - 1, 1))::float as mean_gap_seconds,
        price_viewed_max::float as price_viewed_max,
        (priced / greatest(priced_views, 1))::float as price_viewed_mean,
        entry_channel::float as entry_channel, entry_event::float as entry_event,
        last_event::float as last_event, second_last_event::float as second_last_event,
        third_last_event::float as third_last_event,
        ((time + utc_offset * 60000) % 86400000 / 3600000)::float as local_hour,
        (((time + utc_offset * 60000) // 86400000 + 3) % 7)::float as local_weekday
    from folded
    """


def with_duckdb(connection: duckdb.DuckDBPyConnection) -> object:
    """All prefix features as an Arrow table."""
    return connection.sql(duckdb_query()).to_arrow_table()


def with_polars(events: pl.DataFrame) -> pl.DataFrame:
    """The same by expressions over sorted sessions."""
    name, time, price, item = pl.col("name"), pl.col("time"), pl.col("price"), pl.col("item")
    session = ["visitor", "session_number"]
    local = time + pl.col("utc_offset").cast(pl.Int64) * 60_000
    viewed = name == VIEW_ITEM
    sorted_events = events.lazy().sort("visitor", "time", maintain_order=True)
    numbered = sorted_events.with_columns(
        ((time - time.shift(1).over("visitor")) > TIMEOUT_MS).fill_null(value=True).cast(pl.Int32).alias("starts")
    ).with_columns(pl.col("starts").cum_sum().alias("session_number"))
    inside = numbered.with_columns(
        (time - time.shift(1)).over(session).fill_null(0).alias("gap"),
        (name.shift(1).over(session) == VIEW_ITEM).fill_null(value=False).alias("after_item"),
        ((item != 0) & (item == item.shift(1).over(session))).fill_null(value=False).alias("same_item"),
        pl.int_range(1, pl.len() + 1).over(session).alias("n"),
    )
    folded = inside.select(
        "visitor",
        "time",
        "gap",
        "n",
        "utc_offset",
        pl.col("device").alias("device_kind"),
        pl.col("same_item").cast(pl.Int32).cum_sum().over(session).alias("same_item_repeats"),
        pl.when("after_item").then("gap").otherwise(0).cum_sum().over(session).alias("item_dwell"),
        pl.when(name == ADD_TO_CART).then(time).forward_fill().over(session).alias("last_cart"),
        pl.when(viewed).then(time).forward_fill().over(session).alias("last_item"),
        pl.when(viewed).then(price).forward_fill().over(session).fill_null(0.0).alias("price_viewed_last"),
        pl.col("interactive").cast(pl.Int64).cum_sum().over(session).alias("interactive_events"),
        *((name == code).cast(pl.Int32).cum_sum().over(session).alias(label) for label, code in COUNTED.items()),
        time.first().over(session).alias("started"),
        pl.col("gap").cum_max().over(session).alias("longest"),
        pl.when(viewed).then(price).otherwise(0.0).cum_max().over(session).alias("price_viewed_max"),
        pl.when(viewed).then(price).otherwise(0.0).cum_sum().over(session).alias("priced"),
        (viewed & (price > 0)).cast(pl.Int32).cum_sum().over(session).alias("priced_views"),
        pl.col("channel").first().over(session).alias("entry_channel"),
        name.first().over(session).alias("entry_event"),
        name.alias("last_event"),
        name.shift(1).over(session).fill_null(0).alias("second_last_event"),
        name.shift(2).over(session).fill_null(0).alias("third_last_event"),
        (local % 86_400_000 / 3_600_000).alias("local_hour"),
        ((local // 86_400_000 + 3) % 7).alias("local_weekday"),
    )
    whole = folded.with_columns(
        pl.col("n").alias("events"),
        (pl.col("item_views") / pl.col("n")).alias("item_view_share"),
        ((time - pl.col("started")) / 1000).alias("duration_seconds"),
        (pl.col("gap") / 1000).alias("last_gap_seconds"),
        (pl.col("item_dwell") / 1000 / pl.max_horizontal("item_views", 1)).alias("mean_item_dwell_seconds"),
        ((time - pl.col("last_cart")) / 1000).fill_null(-1.0).alias("seconds_since_cart"),
        ((time - pl.col("last_item")) / 1000).fill_null(-1.0).alias("seconds_since_item"),
        pl.lit(0.0).alias("idle_seconds"),
        (pl.col("longest") / 1000).alias("longest_gap_seconds"),
        ((time - pl.col("started")) / 1000 / pl.max_horizontal(pl.col("n") - 1, 1)).alias("mean_gap_seconds"),
        (pl.col("priced") / pl.max_horizontal("priced_views", 1)).alias("price_viewed_mean"),
    )
    return whole.select("visitor", "time", *(pl.col(label).cast(pl.Float32) for label in NAMES)).collect()


def compare(rows: pd.DataFrame, other: pd.DataFrame, who: str) -> None:
    """Stop unless every value of every row agrees to float32 rounding."""
    left = rows.sort_values(KEYS, kind="stable").reset_index(drop=True)
    right = other.sort_values(KEYS, kind="stable").reset_index(drop=True)
    for name in NAMES:
        np.testing.assert_allclose(left[name], right[name], rtol=2e-5, atol=1e-4, err_msg=f"{who}: {name}")
    console.print(f"{who}: all {len(NAMES)} features of {len(left):,} rows agree")


def main() -> None:
    """Compare the values, then time the three in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    events = simulate(events=options.events, seed=1).events
    events = events.assign(session=0, id=0)  # sessions by time alone, as the queries do it
    fold = compile_fold(CATALOGUE.select(NAMES))

    connection = duckdb.connect()
    connection.register("source", events.assign(seq=np.arange(len(events))))
    connection.execute("create table events as select * from source")
    frame = pl.from_pandas(events)

    rows = build_rows(events, fold, idle_seconds=())
    ours = rows.frame().assign(
        visitor=rows.events["visitor"].to_numpy()[rows.event], time=rows.events["time"].to_numpy()[rows.event]
    )
    compare(ours, with_duckdb(connection).to_pandas(), "DuckDB")
    compare(ours, with_polars(frame).to_pandas(), "Polars")
    buffer = np.empty(rows.matrix.shape, np.float32)
    buffer.fill(0)
    del rows, ours

    seconds = alternate(
        {
            "lotse": lambda: build_rows(events, fold, idle_seconds=(), out=buffer),
            "lotse, new memory": lambda: build_rows(events, fold, idle_seconds=()),
            "duckdb": lambda: with_duckdb(connection),
            "polars": lambda: with_polars(frame),
        },
        options.runs,
    )
    ours_seconds = median(seconds["lotse"])
    report(
        f"{len(NAMES)} prefix features of {len(events):,} events",
        ["engine", "seconds", "M rows/s", "lotse is faster by"],
        [
            [
                name,
                f"{median(took):.2f}",
                f"{len(events) / median(took) / 1e6:.1f}",
                f"{median(took) / ours_seconds:.1f}x",
            ]
            for name, took in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
