"""What was handed to NATS and may yet be lost. Pure."""


class Unconfirmed:
    """What was handed over and not yet confirmed, in order; size is its bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._records: dict[int, bytes] = {}  # by number
        self._number = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def number(self) -> int:
        """Return the number of the last one added."""
        return self._number

    def add(self, record: bytes) -> int:
        """Note a record; returns its number."""
        self._number += 1
        self._records[self._number] = record
        self.size += len(record)
        return self._number

    def confirm(self, number: int) -> None:
        """The record with this number has arrived, or will not."""
        if (record := self._records.pop(number, None)) is not None:
            self.size -= len(record)

    def confirm_up_to(self, number: int) -> None:
        """This record and all before it have arrived."""
        while self._records and (first := next(iter(self._records))) <= number:
            self.confirm(first)

    def take_all(self) -> list[bytes]:
        """Return all, and forget them: the connection is gone."""
        records = list(self._records.values())
        self._records, self.size = {}, 0
        return records
