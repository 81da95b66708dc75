"""What an exchange file provides for an account of its: signed requests, their answers, the private stream.

Shared code works through `Account` and `AccountStream` and never depends on which exchange it has. Pure: times
come as arguments, in the exchange's own clock; requests, frames and balances go out. Amounts are decimals exactly
as the exchange states them, never floats. Credentials are in here and in the gateway only: nothing below prints
them.
"""

import abc
import enum
from collections.abc import Callable, Iterable, Sequence
from decimal import Context, Decimal
from typing import Any, ClassVar, Final

import msgspec

from feedhandler.data.errors import UNDECODABLE, DecodeError, FeedError, ProtocolError
from feedhandler.data.refusal import is_of_a_region
from feedhandler.data.rest import RestAnswer, RestRequest
from feedhandler.exchanges.base import Rows, read_rows

ZERO: Final = Decimal(0)
# the default one rounds to 28 digits; `amount` lets none through that need more
EXACT: Final = Context(prec=250)
CREDENTIAL_SIZE_MAX: Final = 8192  # a PEM key of 4096 bits has some 3,300


class Trouble(enum.Enum):
    """Why an account cannot be read; the value is its name in the API and in metrics."""

    KEY = "key"
    PERMISSION = "permission"
    ADDRESS = "address"
    REGION = "region"
    ACCOUNT = "account"
    CLOCK = "clock"
    RATE_LIMIT = "rate_limit"
    MAINTENANCE = "maintenance"
    NETWORK = "network"
    ANSWER = "answer"

    @property
    def remedy(self) -> str:
        """What the operator can do about it."""
        return REMEDIES[self]

    @property
    def needs_operator(self) -> bool:
        """True if another request helps only after somebody has changed something."""
        return self in (Trouble.KEY, Trouble.PERMISSION, Trouble.ADDRESS, Trouble.REGION, Trouble.ACCOUNT)


REMEDIES: Final = {
    Trouble.KEY: "check key, secret and passphrase; the key may have expired, or belong to another environment",
    Trouble.PERMISSION: "give the key permission to read the account; it needs no other",
    Trouble.ADDRESS: "add this machine's address to the key's list at the exchange",
    Trouble.REGION: "the exchange does not serve the country of this machine's address or of the account, and its"
    " terms of use tell which it does; if it has a host of its own for yours, private_rest_url names it",
    Trouble.ACCOUNT: "use the key of an account of the kind that is read here",
    Trouble.CLOCK: "the request's time was refused twice: set this machine's clock (NTP)",
    Trouble.RATE_LIMIT: "nothing: it is asked again when the exchange permits; other programs may share the limit",
    Trouble.MAINTENANCE: "nothing: it is asked again; see the exchange's status page",
    Trouble.NETWORK: "check the route to the exchange, and private_rest_url; it is asked again by itself",
    Trouble.ANSWER: "nothing: it is asked again; if it stays so, the exchange has changed its protocol",
}
assert set(REMEDIES) == set(Trouble)


class AccountError(FeedError):
    """An account cannot be read; trouble is the reason, retry_after_s how long the exchange wants no requests.

    remedy is the trouble's own unless an exchange has a better one.
    """

    def __init__(
        self, trouble: Trouble, message: str, retry_after_s: float = 0.0, *, remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.retry_after_s = retry_after_s
        self.remedy = remedy or trouble.remedy


class CredentialsError(FeedError):
    """Credentials that cannot be right; field is key, secret or passphrase. The message never quotes them."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class Credentials:
    """What signs the requests of one account. It prints as nothing, and is compared by nobody."""

    __slots__ = ("key", "passphrase", "secret")

    def __init__(self, key: str, secret: str, passphrase: str = "") -> None:
        """Raises CredentialsError for what no exchange hands out."""
        for field, value in (("key", key), ("secret", secret), ("passphrase", passphrase)):
            if not value and field != "passphrase":
                raise CredentialsError(field, "is empty")
            if len(value) > CREDENTIAL_SIZE_MAX:
                raise CredentialsError(field, f"is longer than {CREDENTIAL_SIZE_MAX} characters")
            if not value.isascii() or "\0" in value:
                raise CredentialsError(field, "has characters that no exchange uses; was it copied whole?")
        if not key.isprintable() or " " in key:
            raise CredentialsError("key", "has a space or a line break in it; was it copied whole?")
        self.key, self.secret, self.passphrase = key, secret, passphrase

    def __repr__(self) -> str:
        return "Credentials(…)"

    def __reduce__(self) -> str:
        raise TypeError("credentials are not written anywhere")


class Balance(msgspec.Struct, frozen=True):
    """What an account holds of one asset, in its units: free to use, and locked in orders.

    part: where an exchange keeps an asset in several places, which of them this is; what is held is their sum.
    """

    asset: str
    free: Decimal
    locked: Decimal = ZERO
    part: str = ""

    @property
    def total(self) -> Decimal:
        return EXACT.add(self.free, self.locked)


HTTP_TROUBLES: Final = {
    403: Trouble.ADDRESS,  # a firewall, unless the page names a country
    418: Trouble.RATE_LIMIT,
    429: Trouble.RATE_LIMIT,
    451: Trouble.REGION,
}
TEXT_SIZE_MAX: Final = 200  # of an exchange's text, in messages
AMOUNT_MAX: Final = Decimal(10) ** 30
ASSET_SIZE_MAX: Final = 64
AMOUNT_SIZE_MAX: Final = 100  # digits, or an exponent, that no exchange has


def amount(text: str | int | Decimal, what: str) -> Decimal:
    """Return an amount exactly as it is stated. Raises DecodeError for what is none."""
    try:
        number = Decimal(text)
    except ArithmeticError as exc:  # Decimal's own errors are
        raise DecodeError(f"{what}: an amount that is no number") from exc
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > AMOUNT_SIZE_MAX or abs(number) >= AMOUNT_MAX:
        raise DecodeError(f"{what}: an amount beyond all bounds")
    return number


def balances(
    read: Callable[[msgspec.Raw], Balance | None], rows: Iterable[msgspec.Raw], what: str
) -> Rows[Balance]:
    """Return what is held by the rows of an answer, but for assets of which there is nothing.

    read returns None for a row that is not our business. Amounts are not quoted. Raises AccountError where no row
    can be read.
    """
    known: set[tuple[str, str]] = set()

    def checked(row: msgspec.Raw) -> Balance | None:
        balance = read(row)
        if balance is not None:
            _check_asset(balance)
            if (balance.asset, balance.part) in known:
                raise DecodeError(f"{what}: an asset twice")
            known.add((balance.asset, balance.part))
        return balance

    try:
        found = read_rows(checked, rows, what, size_shown=0)
    except ProtocolError as exc:
        raise AccountError(Trouble.ANSWER, str(exc)) from None
    return Rows([row for row in found.items if row is not None and (row.free or row.locked)], found.problem)


def _check_asset(balance: Balance) -> None:
    if not balance.asset.isprintable() or not 0 < len(balance.asset) <= ASSET_SIZE_MAX:
        raise DecodeError("an asset without a name")


class AccountUpdate(msgspec.Struct, frozen=True):
    """What one message of a private stream means.

    send: frames to answer with, in order. balances: absolute, newest last, of assets that may have changed.
    is_incomplete: something changed that this does not state whole, so a request to REST is due.
    """

    send: tuple[bytes, ...] = ()
    balances: tuple[Balance, ...] = ()
    is_incomplete: bool = False


NOTHING: Final = AccountUpdate()


def changes(read: Callable[[msgspec.Raw], Balance], rows: Iterable[msgspec.Raw], what: str) -> AccountUpdate:
    """Return what the rows of a stream's message mean; for one that cannot be read a request to REST is due.

    Raises DecodeError where none can be.
    """

    def checked(row: msgspec.Raw) -> Balance:
        balance = read(row)
        _check_asset(balance)
        return balance

    try:
        found = read_rows(checked, rows, what, size_shown=0)
    except ProtocolError as exc:
        raise DecodeError(str(exc)) from None
    return AccountUpdate(balances=tuple(found.items), is_incomplete=bool(found.problem))


class AccountStream(abc.ABC):
    """The protocol on one private connection; the caller owns socket and clock."""

    ping_interval_s: float | None = None  # None: the exchange pings at the WebSocket level, and that suffices
    silence_s: float = 60.0  # a connection without any frame, pings included, for so long is dead
    is_live: bool = (
        False  # the exchange has acknowledged: from now on it sends every change. It sends no state first
    )

    def __init__(self, account: "Account", url: str, decoder: msgspec.json.Decoder[Any]) -> None:
        self.url = url
        self._account = account
        self._decode = decoder.decode

    @abc.abstractmethod
    def on_open(self, time_ms: int) -> Sequence[bytes]:
        """Return the frames to send first; none where the exchange sends first."""

    def on_message(self, payload: bytes, time_ms: int) -> AccountUpdate:
        """Take one text message.

        Raises AccountError if the exchange refuses us, ProtocolError if it ends the conversation, and DecodeError
        for anything that it does not document, after which the conversation goes on.
        """
        try:
            message = self._decode(payload)
        except UNDECODABLE as exc:
            raise DecodeError(f"{self._account.name} account: {exc}") from exc
        return self.on_decoded(message, time_ms)

    @abc.abstractmethod
    def on_decoded(self, message: Any, time_ms: int) -> AccountUpdate:
        """Take one message, decoded; what it raises is as above."""

    def ping(self, time_ms: int) -> bytes:
        """Return the frame that keeps the connection alive; only where ping_interval_s is set."""
        raise NotImplementedError(f"{type(self).__name__} needs no ping")


class Account(abc.ABC):
    """The private side of one exchange, for one account, read only."""

    name: ClassVar[str]
    private_ws_url: ClassVar[str]  # production; scheme, host and port; "" where a handshake names the socket
    has_passphrase: ClassVar[bool] = False

    def __init__(self, credentials: Credentials) -> None:
        """Raises CredentialsError for what this exchange does not hand out, such as a missing passphrase."""
        if self.has_passphrase and not credentials.passphrase:
            raise CredentialsError("passphrase", f"is missing; {self.name} asks for the one set with the key")
        if credentials.passphrase and not self.has_passphrase:
            raise CredentialsError("passphrase", f"{self.name} keys have none; leave it out")
        self._credentials = credentials

    def refusal(
        self, answer: RestAnswer, trouble: Trouble | None, code: object, text: str, *, remedy: str = ""
    ) -> AccountError:
        """Return the error for a refused request; trouble None: by the HTTP status.

        Exchanges quote what we sent: nothing of the credentials gets into the message.
        """
        if trouble is None:
            default = Trouble.MAINTENANCE if answer.status >= 500 else Trouble.ANSWER
            trouble = HTTP_TROUBLES.get(answer.status, default)
            if answer.status == 403 and is_of_a_region(text or answer.body.decode(errors="replace")):
                trouble = Trouble.REGION
        said = self.scrubbed(text) or "no reason given"
        message = f"{self.name}: {said} (code {code}, HTTP {answer.status})"
        return AccountError(trouble, message, answer.retry_after_s, remedy=remedy)

    def scrubbed(self, text: str) -> str:
        """Return an exchange's text, in bounds, printable, and without anything that is ours."""
        text = "".join(each if each.isprintable() else " " for each in text)
        for secret in (self._credentials.secret, self._credentials.passphrase, self._credentials.key):
            if secret:
                text = text.replace(secret, "…")
        return text[:TEXT_SIZE_MAX].strip()

    @abc.abstractmethod
    def balances_request(self, time_ms: int) -> RestRequest:
        """Return the signed request for all balances; time_ms is the exchange's present, in Unix ms."""

    @abc.abstractmethod
    def decode_balances(self, answer: RestAnswer) -> Rows[Balance]:
        """Decode its answer: one item per asset and part, none of them empty.

        Raises AccountError if the exchange refused, and DecodeError for what is no answer of its.
        """

    @classmethod
    def underlying(cls, asset: str) -> str:
        """Return the asset in which one is paid out on demand, as savings are; "" if its name has none."""
        return ""

    def kind_request(self, time_ms: int) -> RestRequest | None:
        """Return the signed request for the kind of the account, sent where nothing is held.

        None: all kinds are read alike.
        """
        return None

    def check_kind(self, answer: RestAnswer) -> None:  # noqa: B027  # most have one kind
        """Take its answer; one that is not understood proves nothing.

        Raises AccountError for a kind of account whose balances are elsewhere.
        """

    def stream_request(self, time_ms: int) -> RestRequest | None:
        """Return the signed request that precedes each private connection, such as for a token; None: none does."""
        return None

    @abc.abstractmethod
    def stream(self, ws_url: str, answer: RestAnswer | None) -> AccountStream:
        """Return the conversation for a new private connection; answer is that to `stream_request`.

        Raises AccountError if the exchange refused that, and DecodeError for what is no answer of its.
        """
