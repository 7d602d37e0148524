"""The prefix features of `features.definitions` that SQL can express, written for DuckDB and for Polars.

Left out: approximate counts (`distinct_*`), recursions (the cart that never falls below zero, the recent pause), chains
of "the one before the latest that differs", learned tables, and what consent masks. Every other feature is here, under
its own name; `benchmarks.features` compares all values before it times anything.
"""

from __future__ import annotations

from typing import Final

import duckdb
import polars as pl

from features.aggregations import LN2
from features.events import (
    ADD_PAYMENT_INFO,
    ADD_SHIPPING_INFO,
    ADD_TO_CART,
    ADD_TO_WISHLIST,
    BEGIN_CHECKOUT,
    CLICK,
    DEVICES,
    FILE_DOWNLOAD,
    FORM_START,
    FORM_SUBMIT,
    GENERATE_LEAD,
    LOGIN,
    PAGE_KIND_OF,
    PAGE_KINDS,
    PAGE_VIEW,
    PURCHASE,
    REMOVE_FROM_CART,
    SCROLL,
    SEARCH,
    SELECT_PROMOTION,
    SHARE,
    SIGN_UP,
    USER_ENGAGEMENT,
    VIDEO_COMPLETE,
    VIDEO_PROGRESS,
    VIDEO_START,
    VIEW_CART,
    VIEW_ITEM,
    VIEW_ITEM_LIST,
    VIEW_PROMOTION,
)

TIMEOUT_MS: Final = 1_800_000
KEYS: Final = ["visitor", "time", "events"]
BOT: Final = DEVICES.index("bot")

COUNTED: Final[dict[str, tuple[int, ...]]] = {
    "page_views": (PAGE_VIEW,),
    "list_views": (VIEW_ITEM_LIST,),
    "item_views": (VIEW_ITEM,),
    "cart_views": (VIEW_CART,),
    "searches": (SEARCH,),
    "wishlist_adds": (ADD_TO_WISHLIST,),
    "cart_adds": (ADD_TO_CART,),
    "cart_removes": (REMOVE_FROM_CART,),
    "checkouts": (BEGIN_CHECKOUT,),
    "purchases": (PURCHASE,),
    "clicks": (CLICK,),
    "media_events": (VIDEO_START, VIDEO_PROGRESS, VIDEO_COMPLETE, FILE_DOWNLOAD, SHARE),
    "account_events": (LOGIN, SIGN_UP, GENERATE_LEAD),
    "promotion_events": (VIEW_PROMOTION, SELECT_PROMOTION),
    "scrolls": (SCROLL,),
    "heartbeats": (USER_ENGAGEMENT,),
    "form_starts": (FORM_START,),
    "form_submits": (FORM_SUBMIT,),
}
SINCE: Final[dict[str, tuple[int, ...]]] = {
    "seconds_since_item": (VIEW_ITEM,),
    "seconds_since_search": (SEARCH,),
    "seconds_since_cart": (ADD_TO_CART,),
    "seconds_since_checkout": (BEGIN_CHECKOUT, ADD_SHIPPING_INFO, ADD_PAYMENT_INFO),
}
ALL_NAMES: Final[tuple[int, ...]] = tuple(range(63))
# name -> half-life in seconds, events
DECAYED: Final[dict[str, tuple[float, tuple[int, ...]]]] = {
    "activity_30s": (30, ALL_NAMES),
    "activity_2m": (120, ALL_NAMES),
    "activity_8m": (480, ALL_NAMES),
    "item_activity_2m": (120, (VIEW_ITEM,)),
    "cart_activity_8m": (480, (ADD_TO_CART, VIEW_CART, BEGIN_CHECKOUT)),
}
DWELL: Final = {f"{kind}_dwell_seconds": code for code, kind in enumerate(PAGE_KINDS) if 0 < code < 7}
CHECKOUT_STEPS: Final = {BEGIN_CHECKOUT: 1, ADD_SHIPPING_INFO: 2, ADD_PAYMENT_INFO: 3, PURCHASE: 4}


def _among(names: tuple[int, ...]) -> str:
    return "true" if names == ALL_NAMES else f"name in ({', '.join(map(str, names))})"


def _case(column: str, values: dict[int, int], otherwise: str) -> str:
    return f"case {column} {' '.join(f'when {k} then {v}' for k, v in values.items())} else {otherwise} end"


# feature -> SQL over the columns of `folded` below
FINAL: Final[dict[str, str]] = {
    "events": "events",
    "interactive_events": "interactive_events",
    **{name: name for name in COUNTED},
    "item_view_share": "item_views / events",
    "passive_share": "1.0 - interactive_events / events",
    "same_item_repeats": "same_item_repeats",
    "category_switches": "category_switches",
    "local_hour": "(time + utc_offset * 60000) % 86400000 / 3600000",
    "local_weekday": "((time + utc_offset * 60000) // 86400000 + 3) % 7",
    "weekend": "(((time + utc_offset * 60000) // 86400000 + 3) % 7 >= 5)::int",
    "price_viewed_max": "price_viewed_max",
    "price_viewed_last": "price_viewed_last",
    "price_viewed_min": "price_viewed_min",
    "price_viewed_mean": "priced / greatest(priced_views, 1)",
    "price_drift": "case when priced > 0 then price_viewed_last / (priced / greatest(priced_views, 1)) else 0 end",
    "cheaper_views": "cheaper_views",
    "revenue": "revenue",
    "cart_balance": "cart_adds - cart_removes",
    "checkout_step": "checkout_step",
    "page_kind": "page_kind",
    "page_kinds_seen": "bit_count(kind_bits)",
    **{name: f"{name} / 1000" for name in DWELL},
    "open_page_seconds": "coalesce((time - opened_at) / 1000, -1)",
    "mean_item_dwell_seconds": "item_dwell_seconds / 1000 / greatest(item_views, 1)",
    "scroll_depth_max": "scroll_depth_max",
    "forms_open": "greatest(form_starts - form_submits, 0)",
    "entry_channel": "entry_channel",
    "entry_event": "entry_event",
    "entry_page_kind": "entry_page_kind",
    "from_campaign": "from_campaign",
    "device_kind": "device",
    "duration_seconds": "(time - started) / 1000",
    "idle_seconds": "0",
    "last_gap_seconds": "gap / 1000",
    "longest_gap_seconds": "longest / 1000",
    "mean_gap_seconds": "mean_gap",
    "gap_deviation_seconds": "deviation",
    "gap_variation": "case when mean_gap > 0 then deviation / mean_gap else 0 end",
    "gap_trend": "case when events < 3 then 0 else (gap_ranks - (time - started) / 1000 * events / 2) * 12 "
    "/ ((events - 1) * ((events - 1) * (events - 1) - 1)) end",
    "idle_ratio": "0",
    "events_per_minute": "events * 60 / greatest((time - started) / 1000, 10)",
    **{name: f"coalesce((time - {name}) / 1000, -1)" for name in SINCE},
    **{name: f"{name} * exp(-{LN2 / half_life / 1000} * (time - started))" for name, (half_life, _) in DECAYED.items()},
    "quick_event_share": "quick / greatest(events - 1, 1)",
    "bot_likeness": f"case when device = {BOT} then 1 when events < 5 then 0 else least(0.5 * quick / (events - 1) "
    "+ 0.5 * greatest(1 - 2 * case when mean_gap > 0 then deviation / mean_gap else 0 end, 0), 1) "
    "* (interactive_events / events) end",
    "searches_without_item": "searches - coalesce(searches_at_item, 0)",
    "items_since_search": "coalesce(item_views - items_at_search, 0)",
    "last_event": "name",
    "second_last_event": "coalesce(name_before, 0)",
    "third_last_event": "coalesce(name_before_that, 0)",
    "event_streak": "events - changed_at + 1",
    "distinct_events": "bit_count(name_bits)",
}
NAMES: Final = list(FINAL)


def duckdb_query() -> str:
    """Window functions over the session so far; the session by a running sum of the gaps that end one."""
    counts = ",\n".join(f"count(*) filter ({_among(names)}) over so_far as {name}" for name, names in COUNTED.items())
    since = ",\n".join(f"max(time) filter ({_among(names)}) over so_far as {name}" for name, names in SINCE.items())
    decays = ",\n".join(
        f"coalesce(sum(exp({LN2 / half_life / 1000} * (time - started))) filter ({_among(names)}) over so_far, 0)"
        f" as {name}"
        for name, (half_life, names) in DECAYED.items()
    )
    dwell = ",\n".join(
        f"coalesce(sum(gap) filter (kind_before = {code}) over so_far, 0) as {name}" for name, code in DWELL.items()
    )
    latest = "last_value(case when {when} then {value} end ignore nulls) over {window}"
    viewed, searched = f"name = {VIEW_ITEM}", f"name = {SEARCH}"
    return f"""
    with gaps as (
        select *, lag(time) over (partition by visitor order by time, seq) as before from events
    ), numbered as (
        select *, sum(case when before is null or time - before > {TIMEOUT_MS} then 1 else 0 end)
            over (partition by visitor order by time, seq rows unbounded preceding) as session_number,
            {_case("name", PAGE_KIND_OF, "null")} as opened from gaps
    ), inside as (
        select *, coalesce(time - lag(time) over steps, 0) as gap, first_value(time) over so_far as started,
            lag(name, 1) over steps as name_before, lag(name, 2) over steps as name_before_that,
            row_number() over steps as events,
            last_value(opened ignore nulls) over earlier as kind_before,
            {latest.format(when="item != 0", value="item", window="earlier")} as item_before,
            {latest.format(when="category != 0", value="category", window="earlier")} as category_before,
            {latest.format(when=viewed, value="price", window="earlier")} as price_before,
            count(*) filter ({viewed}) over so_far as items_so_far,
            count(*) filter ({searched}) over so_far as searches_so_far
        from numbered window steps as (partition by visitor, session_number order by time, seq),
            so_far as (partition by visitor, session_number order by time, seq rows unbounded preceding),
            earlier as (partition by visitor, session_number order by time, seq
                rows between unbounded preceding and 1 preceding)
    ), folded as (
        select visitor, time, utc_offset, gap, device, name, events, started, name_before, name_before_that,
            sum(interactive) over so_far as interactive_events,
            {counts}, {since}, {decays}, {dwell},
            count(*) filter (item != 0 and item = item_before) over so_far as same_item_repeats,
            count(*) filter (category != 0 and category_before != category) over so_far as category_switches,
            count(*) filter ({viewed} and 0 < price and price < price_before) over so_far as cheaper_views,
            coalesce(max(price) filter ({viewed}) over so_far, 0) as price_viewed_max,
            coalesce(min(price) filter ({viewed} and price > 0) over so_far, 0) as price_viewed_min,
            coalesce({latest.format(when=viewed, value="price", window="so_far")}, 0) as price_viewed_last,
            coalesce(sum(price) filter ({viewed}) over so_far, 0) as priced,
            count(*) filter ({viewed} and price > 0) over so_far as priced_views,
            coalesce(sum(value) filter (name = {PURCHASE}) over so_far, 0) as revenue,
            max({_case("name", CHECKOUT_STEPS, "0")}) over so_far as checkout_step,
            coalesce(last_value(opened ignore nulls) over so_far, 0) as page_kind,
            coalesce(bit_or(1 << opened) over so_far, 0) as kind_bits,
            max(time) filter (opened is not null) over so_far as opened_at,
            coalesce(max(value) filter (name in ({SCROLL}, {USER_ENGAGEMENT})) over so_far, 0) as scroll_depth_max,
            first_value(channel) over so_far as entry_channel,
            first_value(name) over so_far as entry_event,
            coalesce(first_value(opened ignore nulls) over so_far, 0) as entry_page_kind,
            max((campaign != 0)::int) over so_far as from_campaign,
            max(gap) over so_far as longest,
            (time - started) / 1000 / greatest(events - 1, 1) as mean_gap,
            sqrt(greatest(sum(gap / 1000 * gap / 1000) over so_far / greatest(events - 1, 1)
                - ((time - started) / 1000 / greatest(events - 1, 1)) ** 2, 0)) as deviation,
            sum(gap / 1000 * (events - 1)) over so_far as gap_ranks,
            count(*) filter (events > 1 and gap < 1000) over so_far as quick,
            {latest.format(when=viewed, value="searches_so_far", window="so_far")} as searches_at_item,
            {latest.format(when=searched, value="items_so_far", window="so_far")} as items_at_search,
            {latest.format(when="name is distinct from name_before", value="events", window="so_far")} as changed_at,
            bit_or(1::bigint << name) over so_far as name_bits
        from inside window
            so_far as (partition by visitor, session_number order by time, seq rows unbounded preceding)
    )
    select visitor, time, {", ".join(f"({sql})::float as {name}" for name, sql in FINAL.items())} from folded
    """


def with_duckdb(connection: duckdb.DuckDBPyConnection) -> object:
    """All prefix features as an Arrow table; the table `events` has a column `seq`, the row's place in the log."""
    return connection.sql(duckdb_query()).to_arrow_table()


def with_polars(events: pl.DataFrame) -> pl.DataFrame:
    """The same by expressions over sorted sessions."""
    session = ["visitor", "session_number"]
    name, time, price = pl.col("name"), pl.col("time"), pl.col("price")
    viewed, searched = name == VIEW_ITEM, name == SEARCH

    def among(names: tuple[int, ...]) -> pl.Expr:
        return pl.lit(value=True) if names == ALL_NAMES else name.is_in(names)

    def counted(condition: pl.Expr) -> pl.Expr:
        return condition.fill_null(value=False).cast(pl.Int32).cum_sum().over(session)

    def latest(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
        return pl.when(condition).then(value).forward_fill().over(session)

    def before(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
        return pl.when(condition).then(value).forward_fill().shift(1).over(session)

    opened = pl.col("opened")
    sorted_events = events.lazy().sort("visitor", "time", maintain_order=True)
    numbered = sorted_events.with_columns(
        ((time - time.shift(1).over("visitor")) > TIMEOUT_MS).fill_null(value=True).cast(pl.Int32).alias("starts"),
        name.replace_strict(PAGE_KIND_OF, default=None, return_dtype=pl.Int32).alias("opened"),
        name.replace_strict(CHECKOUT_STEPS, default=0, return_dtype=pl.Int32).alias("step"),
    ).with_columns(pl.col("starts").cum_sum().alias("session_number"))
    inside = numbered.with_columns(
        (time - time.shift(1)).over(session).fill_null(0).alias("gap"),
        time.first().over(session).alias("started"),
        name.shift(1).over(session).alias("name_before"),
        name.shift(2).over(session).fill_null(0).alias("third_last_event"),
        pl.int_range(1, pl.len() + 1).over(session).cast(pl.Int64).alias("events"),
        opened.forward_fill().shift(1).over(session).alias("kind_before"),
        before(pl.col("item") != 0, pl.col("item")).alias("item_before"),
        before(pl.col("category") != 0, pl.col("category")).alias("category_before"),
        before(viewed, price).alias("price_before"),
        counted(viewed).alias("item_views"),
        counted(searched).alias("searches"),
    )
    gap, n = pl.col("gap"), pl.col("events")
    age = (time - pl.col("started")).cast(pl.Float64)
    bits = [name == code for code in range(30)]
    folded = inside.select(
        "visitor",
        "time",
        "utc_offset",
        "gap",
        "started",
        "events",
        "item_views",
        "searches",
        "third_last_event",
        pl.col("device").alias("device_kind"),
        name.alias("last_event"),
        pl.col("name_before").fill_null(0).alias("second_last_event"),
        pl.col("interactive").cast(pl.Int64).cum_sum().over(session).alias("interactive_events"),
        *(
            counted(among(names)).alias(label)
            for label, names in COUNTED.items()
            if label not in ("item_views", "searches")
        ),
        *(latest(among(names), time).alias(f"{label}_at") for label, names in SINCE.items()),
        *(
            (
                pl.when(among(names))
                .then((age * (LN2 / half_life / 1000)).exp())
                .otherwise(0.0)
                .cum_sum()
                .over(session)
                * (age * (-LN2 / half_life / 1000)).exp()
            ).alias(label)
            for label, (half_life, names) in DECAYED.items()
        ),
        *(
            (pl.when(pl.col("kind_before") == code).then(gap).otherwise(0).cum_sum().over(session) / 1000).alias(label)
            for label, code in DWELL.items()
        ),
        counted((pl.col("item") != 0) & (pl.col("item") == pl.col("item_before"))).alias("same_item_repeats"),
        counted((pl.col("category") != 0) & (pl.col("category") != pl.col("category_before"))).alias(
            "category_switches"
        ),
        counted(viewed & (price > 0) & (price < pl.col("price_before"))).alias("cheaper_views"),
        pl.when(viewed).then(price).otherwise(0.0).cum_max().over(session).alias("price_viewed_max"),
        pl.when(viewed & (price > 0))
        .then(price)
        .cum_min()
        .forward_fill()
        .over(session)
        .fill_null(0.0)
        .alias("price_viewed_min"),
        latest(viewed, price).fill_null(0.0).alias("price_viewed_last"),
        pl.when(viewed).then(price).otherwise(0.0).cum_sum().over(session).alias("priced"),
        counted(viewed & (price > 0)).alias("priced_views"),
        pl.when(name == PURCHASE).then(pl.col("value")).otherwise(0.0).cum_sum().over(session).alias("revenue"),
        pl.col("step").cum_max().over(session).alias("checkout_step"),
        opened.forward_fill().over(session).fill_null(0).alias("page_kind"),
        pl.sum_horizontal(
            (opened == code).fill_null(value=False).cast(pl.Int8).cum_max().over(session).cast(pl.Int32)
            for code in range(1, len(PAGE_KINDS))
        ).alias("page_kinds_seen"),
        latest(opened.is_not_null(), time).alias("opened_at"),
        pl.when(among((SCROLL, USER_ENGAGEMENT)))
        .then(pl.col("value"))
        .otherwise(0.0)
        .cum_max()
        .over(session)
        .alias("scroll_depth_max"),
        pl.col("channel").first().over(session).alias("entry_channel"),
        name.first().over(session).alias("entry_event"),
        opened.forward_fill().over(session).fill_null(0).alias("kind_now"),
        opened.drop_nulls().first().over(session).alias("first_kind"),
        (pl.col("campaign") != 0).cast(pl.Int8).cum_max().over(session).alias("from_campaign"),
        gap.cum_max().over(session).alias("longest"),
        ((gap / 1000) ** 2).cum_sum().over(session).alias("gap_squares"),
        (gap / 1000 * (n - 1)).cum_sum().over(session).alias("gap_ranks"),
        counted((n > 1) & (gap < 1000)).alias("quick"),
        latest(viewed, pl.col("searches")).fill_null(0).alias("searches_at_item"),
        latest(searched, pl.col("item_views")).alias("items_at_search"),
        latest(name.ne_missing(pl.col("name_before")), n).alias("changed_at"),
        pl.sum_horizontal(bit.cast(pl.Int8).cum_max().over(session).cast(pl.Int32) for bit in bits).alias(
            "distinct_events"
        ),
    )
    local = time + pl.col("utc_offset").cast(pl.Int64) * 60_000
    duration = (time - pl.col("started")) / 1000
    pauses = pl.max_horizontal(n - 1, 1)
    derived = folded.with_columns(
        duration.alias("duration_seconds"),
        (duration / pauses).alias("mean_gap_seconds"),
        (pl.col("priced") / pl.max_horizontal("priced_views", 1)).alias("price_viewed_mean"),
        (local // 86_400_000 + 3).mod(7).alias("local_weekday"),
        (pl.col("quick") / pauses).alias("quick_event_share"),
        (1.0 - pl.col("interactive_events") / n).alias("passive_share"),
    ).with_columns(
        ((pl.col("gap_squares") / pauses - pl.col("mean_gap_seconds") ** 2).clip(lower_bound=0))
        .sqrt()
        .alias("gap_deviation_seconds"),
    )
    mean_gap = pl.col("mean_gap_seconds")
    variation = pl.when(mean_gap > 0).then(pl.col("gap_deviation_seconds") / mean_gap).otherwise(0.0)
    rule = (0.5 * pl.col("quick_event_share") + 0.5 * (1 - 2 * variation).clip(lower_bound=0)).clip(upper_bound=1)
    whole = derived.with_columns(
        (pl.col("item_views") / n).alias("item_view_share"),
        (local % 86_400_000 / 3_600_000).alias("local_hour"),
        (pl.col("local_weekday") >= 5).cast(pl.Int8).alias("weekend"),
        pl.when(pl.col("priced") > 0)
        .then(pl.col("price_viewed_last") / pl.col("price_viewed_mean"))
        .otherwise(0.0)
        .alias("price_drift"),
        (pl.col("cart_adds") - pl.col("cart_removes")).alias("cart_balance"),
        ((time - pl.col("opened_at")) / 1000).fill_null(-1.0).alias("open_page_seconds"),
        (pl.col("item_dwell_seconds") / pl.max_horizontal("item_views", 1)).alias("mean_item_dwell_seconds"),
        (pl.col("form_starts") - pl.col("form_submits")).clip(lower_bound=0).alias("forms_open"),
        pl.when(pl.col("kind_now") > 0).then(pl.col("first_kind")).otherwise(0).alias("entry_page_kind"),
        pl.lit(0.0).alias("idle_seconds"),
        pl.lit(0.0).alias("idle_ratio"),
        (gap / 1000).alias("last_gap_seconds"),
        (pl.col("longest") / 1000).alias("longest_gap_seconds"),
        variation.alias("gap_variation"),
        pl.when(n < 3)
        .then(0.0)
        .otherwise((pl.col("gap_ranks") - duration * n / 2) * 12 / ((n - 1) * ((n - 1) * (n - 1) - 1)))
        .alias("gap_trend"),
        (n * 60 / pl.max_horizontal(duration, 10.0)).alias("events_per_minute"),
        *(((time - pl.col(f"{label}_at")) / 1000).fill_null(-1.0).alias(label) for label in SINCE),
        pl.when(pl.col("device_kind") == BOT)
        .then(1.0)
        .when(n < 5)
        .then(0.0)
        .otherwise(rule * (1 - pl.col("passive_share")))
        .alias("bot_likeness"),
        (pl.col("searches") - pl.col("searches_at_item")).alias("searches_without_item"),
        (pl.col("item_views") - pl.col("items_at_search")).fill_null(0).alias("items_since_search"),
        (n - pl.col("changed_at") + 1).alias("event_streak"),
    )
    return whole.select("visitor", "time", *(pl.col(label).cast(pl.Float32) for label in NAMES)).collect()
