"""Whether a recording is complete: what is missing is found, and a complete one is called complete."""

import random

import msgspec
import pytest
from recorded import T0, Place, again, answer, closed, frames, opened, plan

from feedhandler.cli.main import main
from feedhandler.recordings import directory
from feedhandler.recordings.segments import TORN
from feedhandler.recordings.traffic import Item, What
from feedhandler.recordings.verification import FeedVerification


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_what_goes_on_from_segment_to_segment_is_complete(place):
    place.put([plan(), opened(), answer(1), *frames(5)])
    place.put([again(plan()), again(opened()), again(answer(1)), *frames(5, 6), answer(2)])
    place.put([again(plan()), again(opened()), *frames(2, 11), closed(12)], reason="stopping")
    report = place.verify()
    assert report.is_complete
    assert report.is_sound
    assert (report.received, report.answered, report.sessions, report.cut_sessions) == (12, 2, 1, 0)
    assert [segment.state for segment in report.segments] == ["closed"] * 3


def test_a_feed_that_starts_anew_counts_anew(place):
    place.put([plan(1), opened(), *frames(5), closed(5)], reason="the feed started anew")
    place.put([plan(2), opened(), *frames(3)])
    report = place.verify()
    assert report.is_complete
    assert report.sessions == 2


def test_a_feed_that_was_killed_is_told_apart(place):
    place.put([plan(1), opened(), *frames(5)], reason="the feed started anew")
    place.put([plan(2), opened(), *frames(3)])
    report = place.verify()
    assert report.is_complete
    assert report.cut_sessions == 1


@pytest.mark.parametrize("dropped", range(1, 10))
def test_a_frame_that_is_missing_is_found(place, dropped):
    kept = [item for item in frames(10) if item.number != dropped]
    place.put([plan(), opened(), *kept, closed(10)])
    report = place.verify()
    assert (report.missing, report.unexplained) == (1, 1)
    (found,) = report.ranges
    assert (found.connection, found.what, found.first, found.last, found.why) == (
        "spot.1",
        "received",
        dropped,
        dropped,
        "",
    )


def test_the_last_frames_of_a_connection_are_missed(place):
    place.put([plan(), opened(), *frames(3), closed(5)])
    report = place.verify()
    assert [(each.first, each.last) for each in report.ranges] == [(4, 5)]


def test_connections_and_directions_are_counted_apart(place):
    sent = [Item(What.SENT, T0, connection="spot.1", number=number) for number in (1, 3)]
    place.put([plan(), opened(), opened("spot.2"), *frames(3), *frames(2, 2, "spot.2"), *sent, answer(2)])
    report = place.verify()
    assert [(each.connection, each.what, each.first) for each in report.ranges] == [
        ("spot.2", "received", 1),
        ("spot.1", "sent", 2),
        ("", "answers", 1),
    ]


def test_what_a_gap_tells_of_is_explained(place):
    gap = Item(What.GAP, T0, number=4, name="the disk was full")
    place.put([plan(), opened(), opened("spot.2"), *frames(3), *frames(3, 1, "spot.2"), gap])
    place.put([again(plan()), *frames(3, 6), *frames(3, 6, "spot.2"), *frames(1, 10)])
    report = place.verify()
    assert (report.missing, report.unexplained, report.gaps) == (5, 1, 1)
    assert [each.why for each in report.ranges] == ["the disk was full"] * 2 + [""]
    assert not report.is_sound


def test_a_gap_behind_which_nothing_comes_is_no_completeness(place):
    place.put([plan(), opened(), *frames(3), Item(What.GAP, T0, number=4, name="the disk was full")])
    report = place.verify()
    assert (report.missing, report.lost) == (0, 4)
    assert report.is_sound
    assert not report.is_complete


def test_a_torn_end_explains_what_is_missing_behind_it(place):
    place.put([plan(), opened(), *frames(5)], reason="")
    place.put([plan(), again(opened()), *frames(5, 9)])
    report = place.verify()
    assert (report.missing, report.unexplained, report.unknown_ends) == (3, 0, 0)
    assert report.is_sound
    assert not report.is_complete


def test_a_torn_end_explains_a_connection_that_was_opened_in_it(place):
    """What a killed recorder had not written yet may be that a connection was opened, and all that it received."""
    place.put([plan()], reason="")
    place.put([again(plan()), again(opened()), *frames(5, 9)])
    report = place.verify()
    assert [(each.what, each.first, each.last) for each in report.ranges] == [("received", 1, 8)]
    assert report.ranges[0].why.endswith(f": {TORN}")
    assert report.is_sound
    assert not report.is_complete


def test_a_torn_end_explains_that_the_session_began_in_it(place):
    place.put([], reason="")
    place.put([again(plan()), again(opened()), *frames(5, 9), answer(3)])
    report = place.verify()
    assert (report.missing, report.unexplained, report.unknown_ends, report.sessions) == (10, 0, 0, 1)
    assert not report.is_complete


def test_a_connection_that_is_only_repeated_is_not_explained_by_what_was_told_before(place):
    place.put([plan(), opened(), *frames(2)], reason="")
    place.put([again(plan()), again(opened()), *frames(2, 5)], reason="time")
    place.put([again(plan()), again(opened()), again(opened("spot.2")), *frames(2, 3, "spot.2")])
    report = place.verify()
    assert [(each.connection, each.first, each.why) for each in report.ranges][1:] == [("spot.2", 1, "")]
    assert (report.missing, report.unexplained) == (4, 2)


def test_a_torn_end_of_which_nothing_is_left_is_unknown(place):
    place.put([], reason="")
    place.put([plan(), opened(), *frames(5)])
    report = place.verify()
    assert (report.missing, report.unexplained, report.unknown_ends) == (0, 0, 1)
    assert not report.is_complete


def test_a_torn_end_behind_which_nothing_comes_is_unknown(place):
    place.put([plan(1), opened(), *frames(5)], reason="")
    place.put([plan(2), opened(), *frames(5)], reason="")
    report = place.verify()
    assert (report.missing, report.unknown_ends) == (0, 2)
    assert not report.is_complete


def test_a_pause_of_the_recorder_explains_and_a_new_file_does_not(place):
    place.put([plan(), opened(), *frames(5)], reason="stopping")
    place.put([plan(), again(opened()), *frames(5, 7)], reason="time")
    place.put([plan(), again(opened()), *frames(5, 13)], reason="time")
    report = place.verify()
    assert (report.missing, report.unexplained) == (2, 1)


def test_a_start_of_the_recorder_explains_what_is_missing_before_it(place):
    """It was killed just after it had begun a new segment, in which there is nothing."""
    place.put([plan(), opened(), *frames(5)], reason="time")
    line = {"event": "started", "at_ns": T0 + int((place.count + 0.5) * 10**9), "path": "", "size": 0}
    (place.path / directory.MANIFEST).write_bytes(msgspec.json.encode(line) + b"\n")
    place.put([again(plan()), again(opened()), *frames(5, 9)], reason="time")
    report = place.verify()
    assert (report.missing, report.unexplained) == (3, 0)


def test_what_was_before_all_that_there_is_is_not_missing(place):
    place.put([again(plan()), again(opened()), again(answer(3)), *frames(5, 700), answer(7), closed(704)])
    assert place.verify().is_complete


def test_any_bit_that_changes_is_found(place):
    path = place.put([plan(), opened(), *frames(5)], frames(5, 6), [*frames(5, 11), closed(15)])
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        report = place.verify()
        assert not report.is_complete, position


def test_a_file_that_is_gone_is_found_unless_it_was_removed(place):
    begins = [[plan(), opened()], *[[again(plan()), again(opened())]] * 2]
    paths = [place.put([*begin, *frames(5, 1 + 5 * number)]) for number, begin in enumerate(begins)]
    for path in paths:
        place.note(path, "closed")
    paths[0].unlink()
    assert [segment.state for segment in place.verify().segments][-1] == "gone"
    assert not place.verify().is_sound
    place.note(paths[0], "removed")
    assert place.verify().is_sound


def test_a_segment_that_was_complete_once_and_is_not_is_damaged(place):
    path = place.put([plan(), opened(), *frames(5)])
    place.note(path, "closed")
    assert place.verify().is_complete
    path.write_bytes(path.read_bytes()[:-10])
    assert place.verify().damaged == 1


def test_a_file_that_is_no_segment_is_damage(place):
    place.put([plan(), opened(), *frames(5)]).write_bytes(b"something else")
    assert place.verify().damaged == 1


def test_an_empty_file_of_a_recorder_that_was_killed_is_torn(place):
    place.put([plan(), opened(), *frames(5)])
    place.put(reason="")
    report = place.verify()
    assert [segment.state for segment in report.segments] == ["closed", "torn"]
    assert report.is_sound


@pytest.mark.parametrize("seed", range(20))
def test_every_planted_loss_is_found_and_nothing_else(place, seed):
    """A thousand items of three connections over segments and blocks, of which some are taken out."""
    rng = random.Random(seed)
    names = ["spot.1", "spot.2", "linear.1"]
    items = [plan(), *(opened(name) for name in names)]
    counts = dict.fromkeys(names, 0)
    for _ in range(1000):
        name = rng.choice(names)
        counts[name] += 1
        items.append(Item(What.RECEIVED, T0, connection=name, number=counts[name]))
    items += [closed(counts[name], name) for name in names]
    losses = set(rng.sample(range(len(names) + 1, 1000), rng.choice((0, 1, 5, 50))))
    kept = [item for number, item in enumerate(items) if number not in losses]
    cuts = sorted(rng.sample(range(1, len(kept)), 9))
    groups = [kept[a:b] for a, b in zip([0, *cuts], [*cuts, len(kept)], strict=True)]
    for first in range(0, len(groups), 3):
        place.put(*groups[first : first + 3])
    report = place.verify()
    assert report.missing == report.unexplained == len(losses)
    assert sum(each.last - each.first + 1 for each in report.ranges) == len(losses)
    assert report.is_complete == (not losses)


# --- the commands


def run(capsys, *arguments):
    status = main(["captures", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_command_tells_whether_anything_is_missing_and_why(place, capsys):
    place.put([plan(), opened(), *frames(5)])
    assert run(capsys, "verify", place.path) == (
        0,
        "binance: complete\n  1 segment (1 closed), 1 start of the feed\n"
        "  5 frames received, 0 sent, 0 answers\n",
        "",
    )
    gap = Item(What.GAP, T0, number=3, name="the disk was full")
    place.put([again(plan()), again(opened()), gap, *frames(5, 9)])
    status, out, _ = run(capsys, "verify", place.path)
    assert status == 1
    assert out.startswith("binance: incomplete, 3 missing, and told why\n")
    assert "missing: spot.1 received 6 to 8, after 2026-09-21 14:13:20.000: the disk was full\n" in out
    place.put([again(plan()), *frames(5, 15)])
    status, out, _ = run(capsys, "verify", place.path)
    assert status == 2
    assert "incomplete, 4 missing, of 1 of which nothing tells why" in out
    assert "spot.1 received 14, after 2026-09-21 14:13:20.000: nothing tells why" in out
    status, out, _ = run(capsys, "verify", "--json", place.path)
    assert status == 2
    assert msgspec.json.decode(out, type=FeedVerification).unexplained == 1


def test_the_command_names_damage(place, capsys):
    path = place.put([plan(), opened(), *frames(5)], frames(5, 6))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    status, out, _ = run(capsys, "verify", place.path)
    assert status == 2
    assert f"damaged: binance/{path.name}: " in out
    assert "a block is not what was written" in out


def test_the_list_has_what_the_manifest_knows_and_what_it_does_not(place, capsys):
    place.put([plan(), opened(), *frames(5)])
    place.put([again(plan()), *frames(5, 6)], reason="")
    status, out, _ = run(capsys, "list", place.path)
    assert status == 0
    assert out.startswith("binance: 2 segments, 0.0 MB\n")
    assert "closed  5 frames" in out.splitlines()[1]
    assert "torn" in out.splitlines()[2]
    status, out, _ = run(capsys, "list", "--json", "--exchange", "binance", place.path)
    assert [each["state"] for each in msgspec.json.decode(out)["segments"]] == ["closed", "torn"]


def test_the_list_tells_of_a_file_that_is_not_as_it_was_closed(place, capsys):
    """Without reading it; `verify` tells what is missing."""
    place.put([plan(), opened(), *frames(5)])
    (file,) = (place.path / "binance").iterdir()
    entry = {"event": "closed", "at_ns": 1, "path": f"binance/{file.name}", "size": file.stat().st_size}
    (place.path / "manifest.jsonl").write_bytes(msgspec.json.encode(entry) + b"\n")
    assert "  closed" in run(capsys, "list", place.path)[1]
    file.write_bytes(file.read_bytes()[:-10])
    (found,) = msgspec.json.decode(run(capsys, "list", "--json", place.path)[1])["segments"]
    assert found["state"] == "another size"
    assert found["reason"] == f"it had {entry['size']} bytes when it was closed"


@pytest.mark.parametrize("command", ["list", "verify"])
def test_where_there_is_nothing_the_commands_say_so(tmp_path, capsys, command):
    for path, words in ((tmp_path, "there are no recordings in it"), (tmp_path / "x", "is no directory")):
        status, out, err = run(capsys, command, path)
        assert (status, out) == (2, "")
        assert words in err


@pytest.mark.parametrize("command", ["list", "verify"])
def test_what_cannot_be_opened_is_named_and_captures_are_no_recordings(place, tmp_path, capsys, command):
    place.put([plan(), opened(), *frames(5)])
    (name,) = (place.path / "binance").iterdir()
    name.with_name("20261130T220615.123456789Z.segment").symlink_to(tmp_path / "gone")
    status, _, err = run(capsys, command, place.path)
    assert status == 2
    assert "20261130T220615.123456789Z.segment: cannot be read: No such file" in err
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.jsonl").touch()
    assert "but captures" not in run(capsys, command, other)[2]
    (other / "monday.jsonl.zst").touch()
    status, _, err = run(capsys, command, other)
    assert status == 2
    assert "captures such as monday.jsonl.zst" in err
    assert "captures decode FILE" in err


def test_a_long_look_says_how_far_it_is(place, capsys, monkeypatch):
    monkeypatch.setattr("feedhandler.cli.verifying.PROGRESS_S", 0.0)
    place.put([plan(), opened(), *frames(5)])
    assert "% of 0.0 MB read" in run(capsys, "verify", place.path)[2]
