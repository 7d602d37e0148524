"""The embedded store encrypted at rest: AES-256-GCM over every value, with the key from the environment only.

Each value is bound to its key, so that nobody can put one visitor's record in another's place. Keys (pseudonyms) and
the schedule stay readable: LMDB orders by them. A nonce is 8 bytes drawn by the process and a count, so none comes
twice however many values are written. A value grows by 28 bytes; a read-modify-write of 776 bytes takes 8.3 us instead
of 5.9.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Awaitable, Sequence
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from features.settings import SettingsError
from serving.settings import StoreSettings
from serving.stores import Advance, Batch, Change, Closed, Found, StoreError, Value, Visit, one_by_one
from serving.stores.embedded import HELD, EmbeddedStore

__all__ = ["HELD", "Seal", "SealedStore", "seal_from_environment"]

ENVIRONMENT: Final = "LOTSE_STORE_KEY"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_COUNT: Final = Struct(">L")
_MARK: Final = b"sealed with"


class Seal:
    """Encrypts and decrypts values.

    >>> seal = Seal(bytes(32))
    >>> seal.open(seal.close(b"record", b"key"), b"key")
    b'record'
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._prefix, self._count = os.urandom(8), 0
        self.mark = hmac.digest(key, b"lotse embedded store", "sha256")

    def close(self, value: Value, bound_to: bytes) -> bytes:
        """The value encrypted, nonce first."""
        if self._count >> 32:
            self._prefix, self._count = os.urandom(8), 0
        nonce = self._prefix + _COUNT.pack(self._count)
        self._count += 1
        return nonce + self._cipher.encrypt(nonce, value, bound_to)

    def open(self, value: Value, bound_to: bytes) -> bytes:
        """What was encrypted.

        Raises
        ------
        StoreError
            It was changed, or belongs to another key.
        """
        try:
            return self._cipher.decrypt(bytes(value[:NONCE_BYTES]), value[NONCE_BYTES:], bound_to)
        except InvalidTag:
            raise StoreError(f"the embedded store: a value was not written with this {ENVIRONMENT}") from None


def seal_from_environment() -> Seal | None:
    """The seal of the key in LOTSE_STORE_KEY, None if there is none.

    Raises
    ------
    SettingsError
        It is no key.
    """
    text = os.environ.get(ENVIRONMENT, "")
    if not text:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{ENVIRONMENT} is not the base64 of {KEY_BYTES} bytes; make one with: openssl rand -base64 32"
        )
    return Seal(key)


class SealedStore(EmbeddedStore):
    """The embedded store whose values are encrypted if there is a key."""

    def __init__(self, place: str, settings: StoreSettings) -> None:
        self._seal = seal_from_environment()
        super().__init__(place, settings)
        self._check(place)

    def _check(self, place: str) -> None:
        """Whether what is there was written as it will be read.

        Raises
        ------
        SettingsError
            It was not.
        """
        with self._env.begin() as transaction:
            found = transaction.get(_MARK, db=self._about)
            tables = self._records, self._closed, self._claimed
            filled = any(transaction.stat(table)["entries"] for table in tables)
        if self._seal is None:
            if found is not None:
                raise SettingsError(f"the store in {place} is encrypted; set {ENVIRONMENT} to the key it was made with")
        elif found is None:
            if filled:
                raise SettingsError(
                    f"the store in {place} is not encrypted, but {ENVIRONMENT} is set; move the folder away and "
                    "start with an empty one (running sessions begin anew), or start without the key"
                )
            with self._write() as transaction:
                transaction.put(_MARK, self._seal.mark, db=self._about)
        elif not hmac.compare_digest(found, self._seal.mark):
            raise SettingsError(f"the store in {place} is encrypted with another key than {ENVIRONMENT}")

    def apply(
        self, visits: Sequence[Visit], advance: Advance = one_by_one, *, alone: bool = False
    ) -> Awaitable[None] | None:
        """Advance visits, all in one transaction; they see what the store's values mean."""
        seal = self._seal
        if seal is None:
            return super().apply(visits, advance, alone=alone)

        def sealed(found: Sequence[Found]) -> list[Change | None]:
            opened = [
                Found(
                    visit,
                    None if value is None else seal.open(value, visit.key),
                    [(key, seal.open(other, key)) for key, other in others],
                )
                for visit, value, others in found
            ]
            return [_closed(seal, one.visit.key, change) for one, change in zip(found, advance(opened), strict=True)]

        return super().apply(visits, sealed, alone=alone)

    def read(self, key: bytes) -> bytes | None:
        """One record."""
        found = super().read(key)
        return found if found is None or self._seal is None else self._seal.open(found, key)

    def read_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Some records."""
        found, seal = super().read_many(keys), self._seal
        if seal is None:
            return found
        return [None if value is None else seal.open(value, key) for key, value in zip(keys, found, strict=True)]

    def waiting(self, key: bytes) -> Sequence[Closed]:
        """Sessions of a record."""
        found = super().waiting(key)
        if self._seal is None:
            return found
        return [Closed(name, self._seal.open(value, name)) for name, value in found]

    def _claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        batch, seal = super()._claim(limit, now_ms, lease_ms), self._seal
        if batch is None or seal is None:
            return batch
        return Batch(batch.name, [Closed(name, seal.open(value, name)) for name, value in batch.sessions])


def _closed(seal: Seal, key: bytes, change: Change | None) -> Change | None:
    """A change with its values encrypted."""
    if change is None:
        return None
    return Change(
        None if change.value is None else seal.close(change.value, key),
        change.due_ms,
        change.moved,
        [Closed(name, seal.close(closed, name)) for name, closed in change.closed] if change.closed else (),
    )
