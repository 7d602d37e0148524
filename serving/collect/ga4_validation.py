"""What Google's validation server says about a request of the Measurement Protocol, in its form and by its limits.

Google documents the codes and the limits, and of the messages one; the others have its style.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

Message = dict[str, str]

MOST_EVENTS: Final = 25
_MOST_PARAMS: Final = 25
_MOST_PROPERTIES: Final = 25
_MOST_ITEMS: Final = 200
_MOST_BYTES: Final = 130_000
_LONGEST_NAME: Final = 40
_LONGEST_VALUES: Final = {"page_title": 300, "page_referrer": 420, "page_location": 1_000}
_LONGEST_VALUE: Final = 100
_LONGEST_PROPERTY: Final = 36
_LONGEST_PROPERTY_NAME: Final = 24
_NAME: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_RESERVED_PREFIXES: Final = ("firebase_", "ga_", "google_", "gtag.")
# Names of events that only Google itself makes.
_RESERVED: Final = frozenset(
    [
        "ad_activeview",
        "ad_click",
        "ad_exposure",
        "ad_query",
        "ad_reward",
        "adunit_exposure",
        "app_background",
        "app_clear_data",
        "app_exception",
        "app_remove",
        "app_store_refund",
        "app_store_subscription_cancel",
        "app_store_subscription_convert",
        "app_store_subscription_renew",
        "app_update",
        "app_upgrade",
        "dynamic_link_app_open",
        "dynamic_link_app_update",
        "dynamic_link_first_open",
        "error",
        "firebase_campaign",
        "firebase_in_app_message_action",
        "firebase_in_app_message_dismiss",
        "firebase_in_app_message_impression",
        "first_open",
        "first_visit",
        "in_app_purchase",
        "notification_dismiss",
        "notification_foreground",
        "notification_open",
        "notification_receive",
        "notification_send",
        "os_update",
        "session_start",
        "session_start_with_rollout",
        "user_engagement",
    ]
)


def name_problem(name: Any) -> tuple[str, str] | None:
    """Why Google would leave an event out for its name: code and message; None if it would not."""
    if not isinstance(name, str) or not name:
        return "VALUE_REQUIRED", "has no name. A name is required"
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        return "NAME_RESERVED", f"has reserved name [{name}]"
    return _malformed(name, _LONGEST_NAME)


def problems(body: bytes) -> list[Message]:
    """The messages for a request, none if all is well."""
    if len(body) > _MOST_BYTES:
        return [_message("", "VALUE_OUT_OF_BOUNDS", f"The request is larger than {_MOST_BYTES // 1000}kB.")]
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        request = None
    if not isinstance(request, dict):
        return [_message("", "VALUE_INVALID", "Unable to parse Measurement Protocol JSON payload.")]
    found = []
    if not request.get("client_id") and not request.get("app_instance_id"):
        found.append(_message("client_id", "VALUE_REQUIRED", "Measurement requires a client_id or an app_instance_id."))
    if not _is_time(request.get("timestamp_micros")):
        found.append(
            _message("timestamp_micros", "VALUE_INVALID", "timestamp_micros must be a number of microseconds.")
        )
    found += _of_properties(request.get("user_properties"))
    events = request.get("events")
    if not isinstance(events, list) or not events:
        return [*found, _message("events", "VALUE_REQUIRED", "Measurement requires at least one event.")]
    if len(events) > MOST_EVENTS:
        text = f"Found [{len(events)}] events; at most {MOST_EVENTS} are allowed."
        found.append(_message("events", "EXCEEDED_MAX_ENTITIES", text))
    for index, event in enumerate(events):
        found += _of_event(f"Event at index: [{index}]", event)
    return found


def _of_event(where: str, event: Any) -> list[Message]:
    if not isinstance(event, dict):
        return [_message("events", "VALUE_INVALID", f"{where} is not an object.")]
    found = []
    if bad := name_problem(event.get("name")):
        found.append(_message("events", bad[0], f"{where} {bad[1]}."))
    if not _is_time(event.get("timestamp_micros")):
        found.append(_message("events.timestamp_micros", "VALUE_INVALID", f"{where} has an invalid timestamp_micros."))
    params = event.get("params", {})
    if not isinstance(params, dict):
        return [*found, _message("events.params", "VALUE_INVALID", f"{where} has params that are not an object.")]
    if len(params) > _MOST_PARAMS:
        text = f"{where} has [{len(params)}] params; at most {_MOST_PARAMS} are allowed."
        found.append(_message("events.params", "EXCEEDED_MAX_ENTITIES", text))
    for name, value in params.items():
        path = f"events.params.{name}"
        if bad := _malformed(name, _LONGEST_NAME):
            found.append(_message("events.params", bad[0], f"{where} has a param that {bad[1]}."))
        elif name.startswith(_RESERVED_PREFIXES):
            found.append(
                _message("events.params", "NAME_RESERVED", f"{where} has a param with reserved name [{name}].")
            )
        elif isinstance(value, str) and len(value) > _LONGEST_VALUES.get(name, _LONGEST_VALUE):
            found.append(
                _message(path, "VALUE_OUT_OF_BOUNDS", f"{where} has param [{name}] with a value that is too long.")
            )
        elif name == "items":
            found += _of_items(where, value)
        elif (name == "value" and not _is_number(value)) or (
            name == "currency" and not (isinstance(value, str) and _CURRENCY.fullmatch(value))
        ):
            found.append(_message(path, "VALUE_INVALID", f"{where} has param [{name}] with an invalid value."))
    return found


def _of_items(where: str, items: Any) -> list[Message]:
    path = "events.params.items"
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return [_message(path, "VALUE_INVALID", f"{where} has items that are not a list of objects.")]
    if len(items) > _MOST_ITEMS:
        text = f"{where} has [{len(items)}] items; at most {_MOST_ITEMS} are allowed."
        return [_message(path, "EXCEEDED_MAX_ENTITIES", text)]
    return [
        _message(path, "VALUE_REQUIRED", f"{where} has an item at index: [{index}] without item_id or item_name.")
        for index, item in enumerate(items)
        if not item.get("item_id") and not item.get("item_name")
    ]


def _of_properties(properties: Any) -> list[Message]:
    path = "user_properties"
    if properties is None:
        return []
    if not isinstance(properties, dict):
        return [_message(path, "VALUE_INVALID", "user_properties is not an object.")]
    if len(properties) > _MOST_PROPERTIES:
        text = f"Found [{len(properties)}] user properties; at most {_MOST_PROPERTIES} are allowed."
        return [_message(path, "EXCEEDED_MAX_ENTITIES", text)]
    found = []
    for name, said in properties.items():
        value = said.get("value") if isinstance(said, dict) else said
        if bad := _malformed(name, _LONGEST_PROPERTY_NAME):
            found.append(_message(path, bad[0], f"A user property {bad[1]}."))
        elif isinstance(value, str) and len(value) > _LONGEST_PROPERTY:
            found.append(
                _message(f"{path}.{name}", "VALUE_OUT_OF_BOUNDS", f"User property [{name}] has too long a value.")
            )
    return found


def _malformed(name: str, longest: int) -> tuple[str, str] | None:
    if not name[:1].isascii() or not name[:1].isalpha():
        rule = "start with an alphabetic character"
    elif not _NAME.fullmatch(name):
        rule = "only contain alpha-numeric characters and underscores"
    elif len(name) > longest:
        rule = f"be {longest} characters or fewer"
    else:
        return None
    return "NAME_INVALID", f"has invalid name [{name}]. Names must {rule}"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_time(value: Any) -> bool:
    """Missing, or a number of microseconds, which may be text."""
    return value is None or str(value).isdigit()


def _message(path: str, code: str, description: str) -> Message:
    return {"fieldPath": path, "description": description, "validationCode": code}
