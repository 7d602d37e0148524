"""The shop's `LOTSE` setting, read once, typed and frozen; what is wrong with it is told key by key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, get_type_hints
from urllib.parse import quote, urlsplit

import msgspec
from django.http import HttpRequest
from django.utils.module_loading import import_string
from msgspec import Meta

ConsentResolver = Callable[[HttpRequest], Any]
VisitorResolver = Callable[[HttpRequest], Any]

_SECRET: Final = "lotse_sec_"
_PUBLIC: Final = "lotse_pub_"
_COOKIE_NAME: Final = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}$"
EXAMPLE: Final = '{"URL": "http://127.0.0.1:3000", "KEY": os.environ["LOTSE_KEY"]}'


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """The keys of `LOTSE`.

    Attributes
    ----------
    url: of the service, as this server reaches it; key: a secret key, empty where the service needs none.
    timeout_ms: how long a page waits for its answer at most, all phases together.
    flags: "all", names, or names with the defaults that hold without an answer; None asks for none.
    cookie: name of the first-party cookie of visitors who consented to `link`.
    consent: `request -> purposes`, or the dotted path of one; None from it is "nobody asked yet".
    visitor: `request -> text` that tells a visitor's requests to be one's, without a cookie of ours; or its path.
    require_consent: send nothing of visitors who have not consented to `measure`.
    skip: beginnings of paths that are no pages; those of static files and media are skipped anyway.
    failures, retry_seconds: after so many failures in a row no page waits for so long.
    queue: events that wait for the service at most; flush_seconds: how long the process's end may take to send them.
    script: address of the browser client's lotse.js, or its path among the static files; empty: pages have none.
    public_key, collector: what the browser client is given: a public key, and the service as browsers reach it.
    openfeature: whether OpenFeature's API is answered by the service.
    """

    url: str
    key: str = ""
    timeout_ms: Annotated[int, Meta(ge=1, le=10_000)] = 30
    flags: Literal["all"] | list[str] | dict[str, Any] | None = None
    cookie: Annotated[str, Meta(pattern=_COOKIE_NAME)] = "lotse"
    consent: Any = None
    visitor: Any = None
    require_consent: bool = False
    skip: list[str] = []
    failures: Annotated[int, Meta(ge=1)] = 5
    retry_seconds: Annotated[float, Meta(gt=0)] = 5.0
    queue: Annotated[int, Meta(ge=1)] = 10_000
    flush_seconds: Annotated[float, Meta(ge=0)] = 2.0
    script: str = ""
    public_key: str = ""
    collector: str = ""
    openfeature: bool = False

    def __repr__(self) -> str:
        """Without the key: settings end up in logs and in error pages."""
        return f"Settings(url={self.url!r}, ...)"

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Flags that the shop has given values for."""
        return self.flags if isinstance(self.flags, dict) else {}

    @property
    def query(self) -> str:
        """The query of `POST /v1/events` that asks for the flags."""
        if not self.flags:
            return ""
        return "?flags=" + ("all" if self.flags == "all" else ",".join(map(quote, self.flags)))


class Wrong(NamedTuple):
    """What is wrong with a key, and what to do."""

    key: str
    problem: str
    hint: str


def read(given: object) -> tuple[Settings | None, list[Wrong]]:
    """The settings, None if they cannot be used, and everything that is wrong with them."""
    if not isinstance(given, Mapping):
        return None, [Wrong("", f"LOTSE is {_shown(given)}, expected a dict", f"Set LOTSE = {EXAMPLE}.")]
    types = get_type_hints(Settings, include_extras=True)
    kinds = {field.encode_name: types[field.name] for field in msgspec.structs.fields(Settings)}
    wrong = [
        Wrong(str(key), "is no setting of Lotse", f"Known are {', '.join(kinds)}.") for key in given if key not in kinds
    ]
    if "URL" not in given:
        wrong.append(Wrong("URL", "is missing", f"Where the service is: LOTSE = {EXAMPLE}."))
    values: dict[str, Any] = {}
    for key in kinds.keys() & given.keys():
        try:
            value = msgspec.convert(given[key], kinds[key])
            values[key] = _resolver(value) if key in ("CONSENT", "VISITOR") else value
        except msgspec.ValidationError as error:
            wrong.append(Wrong(key, f"is not as expected: {error}", "See the table of settings in the README."))
        except (ImportError, TypeError) as error:
            hint = 'A function of the request, or its dotted path, such as "shop.consent.of_request".'
            wrong.append(Wrong(key, f"cannot be used: {error}", hint))
    wrong += _wrong_texts(values)
    return (None, wrong) if wrong else (Settings(**{key.lower(): value for key, value in values.items()}), [])


def _wrong_texts(values: Mapping[str, Any]) -> Iterable[Wrong]:
    for key in ("URL", "COLLECTOR"):
        if values.get(key) and not _is_address(values[key]):
            yield Wrong(key, "is no address", 'Scheme and host, such as "https://lotse.shop.example".')
    key, public = values.get("KEY", ""), values.get("PUBLIC_KEY", "")
    if key and not key.startswith(_SECRET):
        hint = "lotse keys create --kind secret --name shop"
        yield Wrong("KEY", f"is no secret key: these begin with {_SECRET}", f"Make one with: {hint}")
    if public and not public.startswith(_PUBLIC):
        hint = "lotse keys create --kind public --name shop --origins https://www.shop.example"
        said = "is a secret key, which every visitor would see" if public.startswith(_SECRET) else "is no public key"
        yield Wrong("PUBLIC_KEY", f"{said}; public ones begin with {_PUBLIC}", f"Make one with: {hint}")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and parts.port != 0
    except ValueError:
        return False


def _resolver(value: object) -> object:
    """The function, from itself or from its path.

    Raises
    ------
    ImportError, TypeError
        There is none.
    """
    found = import_string(value) if isinstance(value, str) and value else value
    if found is None or callable(found):
        return found
    raise TypeError(f"expected a function, found {_shown(found)}")


def _shown(value: object) -> str:
    return "not set" if value is None else f"of type {type(value).__name__}"
