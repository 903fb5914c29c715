"""Copies of online records in Redis or Valkey: sealed, named by HMACs, and good for one state of the group each.

Of each group there is ``PREFIXat``, which says the state that the copies are of (`turns`) and the generation that
they belong to, and one key for each record that was read. A copy counts for a reader whose snapshot is in just that
state; else SQL is asked. Whatever changes ``at`` or adds a copy is a script that compares ``at`` first, so the copies
under it are always what that state held. A process that dies between its commit and here, a server that forgets,
evicts, or comes back with older data: each costs a look into SQL, and never gives an old value.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from sqlalchemy import Connection

from carelake.core.errors import Invalid, Unavailable
from carelake.core.permit import Permit
from carelake.core.settings import FeatureSettings
from carelake.core.shapes import decodable
from carelake.features.groups import online, turns
from carelake.features.groups.definition import Group
from carelake.features.groups.log import teller
from carelake.features.groups.values import micros
from carelake.vault.secretfile import secret_in
from carelake.vault.slips import Slips
from carelake.vault.workspace import Vault

__all__ = ["Redis"]

_LONGEST_MS = 86_400_000
"""No copy is older than a day, whoever forgets it."""
_PAUSE = 1.0
_SOME = 500
_MOVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_BEGIN = """
local now = redis.call('GET', KEYS[1])
if (now or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_FILL = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[2 * i - 2], 'PX', ARGV[2 * i - 1]) end
return 1
"""
_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


class _Copy(msgspec.Struct, array_like=True):
    """What a copy holds; all of it is sealed, and the values under their patient's key before that."""

    record: str
    owner: str
    event: int
    expires: int | None
    sealed: bytes


class _At(msgspec.Struct, frozen=True, array_like=True):
    """What ``at`` says."""

    generation: str
    number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    word: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]

    @property
    def text(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def read(cls, data: bytes | None) -> _At | None:
        try:
            return msgspec.json.decode(data, type=decodable(cls)) if data else None
        except msgspec.MsgspecError:
            return None


class Redis:
    """One server, or several behind one address.

    Raises:
        Unavailable: ``features.redis_extra``, ``features.redis_password``.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        try:
            import redis
        except ImportError:
            raise Unavailable(
                "features.redis_extra", "features.redis is set, and its driver is not installed: the extra `redis`."
            ) from None
        self._errors = (redis.RedisError, OSError)
        self._client: Any = redis.Redis.from_url(settings.redis, **_said(settings))
        self._move, self._begin, self._fill = (self._client.register_script(one) for one in (_MOVE, _BEGIN, _FILL))
        self._down, self._told = 0.0, False

    # -- what is read ---------------------------------------------------------------------------------------------

    def latest(
        self, permit: Permit, tx: Connection, vault: Vault, group: Group, records: Sequence[str]
    ) -> dict[str, online.Latest]:
        """See `OnlineStore`."""
        state = turns.state_of(tx, group)
        if not state.number:  # nothing was ever told of its state
            return online.latest(tx, group.id, records)
        names = dict(zip(records, self._names(permit, vault, group, records), strict=True))
        asked = [_prefix(vault, group) + "at", *names.values()]
        raw, *values = self._try(lambda: self._client.mget(asked)) or [None]
        at = _At.read(raw)
        if at is None or (at.number, at.word) != state:
            if raw is not None or self._down <= time.monotonic():
                self._try(lambda: self._catch_up(tx, vault, group, raw, at, state, ahead=False))
            return online.latest(tx, group.id, records)
        found = {}
        for record, value in zip(names, values, strict=True):
            copy = _opened(permit, vault, names[record], at, value)
            if copy is not None and copy.record == record:
                found[record] = online.Latest(record, copy.owner, copy.event, copy.expires, False, copy.sealed)
        missing = [one for one in names if one not in found]
        if missing:
            there = online.latest(tx, group.id, missing)
            found |= there
            self._try(lambda: self._keep(permit, vault, group, at, {names[one]: there[one] for one in there}))
        return found

    def _keep(self, permit: Permit, vault: Vault, group: Group, at: _At, rows: Mapping[str, online.Latest]) -> None:
        """Add copies of what this state holds."""
        now = micros(vault.clock.now())
        keys, values = [_prefix(vault, group) + "at"], [at.text]
        for name, row in rows.items():
            if row.deleted or not row.there(now):
                continue
            copy = _Copy(row.record, row.owner, row.event, row.expires, row.sealed)
            lives = _LONGEST_MS if row.expires is None else min(_LONGEST_MS, max(1, (row.expires - now) // 1_000))
            sealed = _slips(permit, vault, name, at.generation).give(msgspec.msgpack.encode(copy))
            keys.append(name)
            values += [sealed.encode(), b"%d" % lives]
        if len(keys) > 1:
            self._fill(keys=keys, args=values)

    # -- what is committed ----------------------------------------------------------------------------------------

    def settle(self, permit: Permit, vault: Vault, group: Group) -> None:
        """See `OnlineStore`."""
        raw = self._try(lambda: [self._client.get(_prefix(vault, group) + "at")])
        if raw is None:
            return
        at = _At.read(raw[0])
        with vault.database.reading(permit) as tx:  # begins after ``at`` was read: it is never behind that
            state = turns.state_of(tx, group)
            if state.number and (at is None or (at.number, at.word) != state):
                self._try(lambda: self._catch_up(tx, vault, group, raw[0], at, state, ahead=True))

    def _catch_up(
        self,
        tx: Connection,
        vault: Vault,
        group: Group,
        raw: bytes | None,
        at: _At | None,
        state: turns.State,
        *,
        ahead: bool,
    ) -> None:
        """Make ``at`` say this state, the copies of what changed since gone; in another generation if all may have.

        Args:
            ahead: whether ``at`` may be replaced that does not lie behind.
        """
        if at is not None and at.number >= state.number and not ahead:
            return  # it may be of a commit that this snapshot does not see
        prefix = _prefix(vault, group)
        since = None if at is None else turns.since(tx, group, turns.State(at.number, at.word))
        if at is not None and raw is not None and since is not None:
            names = [prefix + one.hex() for one in since]
            self._move(keys=[prefix + "at", *names], args=[raw, _At(at.generation, *state).text])
        else:
            self._begin(keys=[prefix + "at"], args=[raw or b"", _At(secrets.token_hex(8), *state).text])

    # -- what must go ---------------------------------------------------------------------------------------------

    def purge(self, permit: Permit, vault: Vault, group: Group) -> None:
        """See `OnlineStore`."""

        with vault.database.reading(permit) as tx:
            state = turns.state_of(tx, group)
        prefix = _prefix(vault, group)
        at = _At(secrets.token_hex(8), *state)

        def work() -> None:
            # Not taken away: a reader of an older snapshot would begin a generation with what that holds still.
            self._client.set(prefix + "at", at.text, px=_LONGEST_MS)
            for some in self._all(prefix):
                if copies := [one for one in some if one != (prefix + "at").encode()]:
                    self._client.delete(*copies)

        self._must(work)

    def left(self, permit: Permit, vault: Vault, group: Group, patients: Collection[str]) -> int:
        """See `OnlineStore`."""
        return self._must(lambda: self._count(permit, vault, group, set(patients)))

    def _count(self, permit: Permit, vault: Vault, group: Group, patients: set[str]) -> int:
        prefix, count = _prefix(vault, group), 0
        at = _At.read(self._client.get(prefix + "at"))
        for some in self._all(prefix):
            for key, value in zip(some, self._client.mget(some), strict=True):
                name = key.decode()
                if value is None or name == prefix + "at":
                    continue
                told = _opened(permit, vault, name, at, value)
                count += told is None or told.owner in patients or told.record in patients
        return count

    def _all(self, prefix: str) -> Iterator[list[bytes]]:
        some: list[bytes] = []
        for key in self._client.scan_iter(match=prefix + "*", count=_SOME):
            some.append(key)
            if len(some) == _SOME:
                yield some
                some = []
        if some:
            yield some

    # -- the server -----------------------------------------------------------------------------------------------

    def _names(self, permit: Permit, vault: Vault, group: Group, records: Sequence[str]) -> list[str]:
        tell, prefix = teller(permit, vault, group.id), _prefix(vault, group)
        return [prefix + tell(one).hex() for one in records]

    def _try(self, work: Callable[[], _Answer]) -> _Answer | None:
        """What it answers; None where the server does not, and for a moment after that."""
        if self._down > time.monotonic():
            return None
        try:
            answer = work()
        except self._errors as error:
            self._down = time.monotonic() + _PAUSE
            if not self._told:  # once, however long it lasts
                _log.warning("features.redis does not answer (%s): SQL is asked", type(error).__name__)
            self._told = True
            return None
        self._told = False
        return answer

    def _must(self, work: Callable[[], _Answer]) -> _Answer:
        try:
            return work()
        except self._errors as error:
            raise Unavailable(
                "features.redis",
                f"The server of features.redis does not answer ({type(error).__name__}); copies of records are not "
                "removed from it. Start it and do this again.",
            ) from None


def _opened(permit: Permit, vault: Vault, name: str, at: _At | None, value: bytes | None) -> _Copy | None:
    """A copy; None for none, and for what is of another key or generation."""
    if value is None or at is None:
        return None
    try:
        told = _slips(permit, vault, name, at.generation).take(value.decode("ascii"))
        return msgspec.msgpack.decode(told, type=decodable(_Copy))
    except (Invalid, ValueError, msgspec.MsgspecError):
        return None


def _slips(permit: Permit, vault: Vault, name: str, generation: str) -> Slips:
    return Slips(permit, vault.keyring, "feature-copy", f"{name} {generation}".encode())


def _prefix(vault: Vault, group: Group) -> str:
    """Of one group in one copy of the workspace; in braces what a cluster lays together."""
    copy = hashlib.sha256(vault.settings.copy_name.encode()).hexdigest()[:16]
    return f"carelake:{{{copy}:{group.id}}}:"


def _said(settings: FeatureSettings) -> dict[str, Any]:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    seconds = settings.redis_ms / 1_000
    said: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "client_name": "carelake"}
    said["retry"] = Retry(NoBackoff(), 0)  # SQL is asked at once
    if settings.redis_password_file:
        setting = "features.redis_password_file"
        said["password"] = secret_in(settings.redis_password_file, "features.redis_password", setting)
    if settings.redis.startswith("rediss://"):
        said |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        said |= {"ssl_ca_certs": settings.redis_ca_file} if settings.redis_ca_file else {}
    return said
