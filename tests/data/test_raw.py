"""Reading and writing memory: the functions in Python, and those of the same names that compiled modules take."""

import importlib.util
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import feedhandler
from feedhandler.data import raw

WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i64": 8, "f64": 8, "u64_big": 8}
# Makes of each inline function one that can be called from here.
SOURCE = """# cython: language_level=3
from feedhandler.data cimport raw
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
"""
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import setup
setup(ext_modules=cythonize(["shown_raw.pyx"], include_path=[sys.argv.pop()]))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if not feedhandler.IS_COMPILED:
        pytest.skip("nothing is compiled here")
    folder = tmp_path_factory.mktemp("raw")
    text = Path(raw.__file__).with_suffix(".pxd").read_text(encoding="utf-8")
    shown = SOURCE
    for name, arguments in re.findall(
        r"cdef inline \S+ (?!readable|writable)(\w+)\(\s*(.*?)\s*\) ?(?:except|:)", text
    ):
        names = ", ".join(each.split()[-1] for each in arguments.split(","))
        shown += f"def {name}({arguments}):\n    return raw.{name}({names})\n"
    (folder / "shown_raw.pyx").write_text(shown, encoding="utf-8")
    (folder / "build.py").write_text(BUILD, encoding="utf-8")
    root = str(Path(feedhandler.__file__).parents[1])
    command = [sys.executable, "build.py", "-q", "build_ext", "--inplace", root]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (made,) = folder.glob("shown_raw.*.so")
    spec = importlib.util.spec_from_file_location("shown_raw", made)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["python", pytest.param("compiled", marks=pytest.mark.e2e)])
def form(request):
    return raw if request.param == "python" else request.getfixturevalue("compiled")


@pytest.mark.e2e
def test_every_function_is_there_in_both_forms(compiled):
    pattern = r"(get|put)_|copy|cut|count_|size$"
    names = {name for name in dir(raw) if re.match(pattern, name)}
    assert names == {name for name in dir(compiled) if re.match(pattern, name)}


@pytest.mark.parametrize("is_falling", [False, True])
def test_numbers_in_order_are_counted_up_to_one(form, is_falling):
    rng = random.Random(7)
    for count in (0, 1, 2, 3, 20, 1000):
        numbers = sorted((float(rng.randint(1, 400)) for _ in range(count)), reverse=is_falling)
        buffer = bytearray(3) + b"".join(struct.pack("<dd", number, 9.0) for number in numbers)
        for value in (0.0, 401.0, *(float(rng.randint(1, 400)) for _ in range(20))):
            expected = sum(number > value if is_falling else number < value for number in numbers)
            assert form.count_before(buffer, 3, 16, count, value, is_falling) == expected


def test_nothing_beyond_the_buffer_is_counted(form):
    buffer = bytes(64)
    assert [form.count_before(buffer, 0, 16, count, 1.0, False) for count in (4, 0, -1)] == [4, 0, 0]
    assert form.count_before(buffer, 8, 16, 4, 1.0, False) == 4
    for at, step, count in (
        (9, 16, 4),
        (0, 16, 5),
        (-1, 16, 1),
        (0, 7, 2),
        (0, -8, 2),
        (0, 2**40, 2**40),
        (65, 8, 1),
    ):
        with pytest.raises(IndexError):
            form.count_before(buffer, at, step, count, 1.0, False)


@pytest.mark.parametrize("name", WIDTHS)
def test_what_was_put_is_got_again_and_nothing_else_is_changed(form, name):
    width, rng = WIDTHS[name], random.Random(name)
    for _ in range(100):
        buffer = bytearray(rng.randbytes(20))
        at = rng.randrange(21 - width)
        if name == "f64":
            value = rng.choice((0.0, -0.0, 1.5, 1e308, 5e-324, float("inf")))
        else:
            low, high = (-(2**63), 2**63 - 1) if name == "i64" else (0, 256**width - 1)
            value = rng.choice((low, high, rng.randint(low, high)))
        before = bytes(buffer)
        getattr(form, f"put_{name}")(buffer, at, value)
        assert (buffer[:at], buffer[at + width :]) == (before[:at], before[at + width :])
        for source in (buffer, bytes(buffer)):
            assert repr(getattr(form, f"get_{name}")(source, at)) == repr(value)
            assert repr(getattr(raw, f"get_{name}")(source, at)) == repr(value), "the same bytes"


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 20])
def test_nothing_is_read_or_written_beyond_a_buffer(form, name, size):
    width = WIDTHS[name]
    for at in (-(2**63), -9, -1, size - width + 1, size, size + 1, 2**63 - 1):
        if 0 <= at <= size - width:
            continue
        buffer = bytearray(size)
        with pytest.raises(IndexError):
            getattr(form, f"put_{name}")(buffer, at, 1)
        assert buffer == bytes(size)
        for source in (buffer, bytes(buffer)):
            with pytest.raises(IndexError):
                getattr(form, f"get_{name}")(source, at)


EXTREMES = (-(2**63), -1, 0, 1, 3, 4, 5, 2**63 - 1)


def test_bytes_are_copied_within_both_buffers_or_not_at_all(form):
    for at in EXTREMES:
        for start in EXTREMES:
            for size in EXTREMES:
                target = bytearray(b"abcd")
                is_within = size >= 0 and 0 <= at <= 4 - size and 0 <= start <= 4 - size
                if is_within:
                    form.copy(target, at, b"1234", start, size)
                    assert target == b"abcd"[:at] + b"1234"[start : start + size] + b"abcd"[at + size :]
                    continue
                with pytest.raises(IndexError):
                    form.copy(target, at, b"1234", start, size)
                assert target == b"abcd"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_all_of_a_buffer_is_copied_or_nothing(form, make):
    source = make(b"12")
    for at in EXTREMES:
        target = bytearray(b"abcd")
        if 0 <= at <= 2:
            assert form.copy_all(target, at, source) == 2
            assert target == b"abcd"[:at] + b"12" + b"abcd"[at + 2 :]
            continue
        with pytest.raises(IndexError):
            form.copy_all(target, at, source)
        assert target == b"abcd"
    assert form.copy_all(target, 4, make(b"")) == 0


def test_parts_of_one_buffer_may_overlap(form):
    buffer = bytearray(b"0123456789")
    form.copy(buffer, 2, buffer, 0, 8)
    assert buffer == b"0101234567"
    form.copy(buffer, 0, buffer, 2, 8)
    assert buffer == b"0123456767"


def test_a_part_is_cut_out_as_bytes(form):
    for source in (b"0123", bytearray(b"0123")):
        assert (form.cut(source, 1, 2), form.cut(source, 4, 0)) == (b"12", b"")
        for start, size in ((-1, 2), (3, 2), (5, 0), (0, -1), (2**63 - 1, 1)):
            with pytest.raises(IndexError):
                form.cut(source, start, size)


@pytest.mark.e2e
@pytest.mark.parametrize("other", [None, memoryview(b"12345678"), "12345678", 5])
def test_compiled_code_takes_no_other_memory(compiled, other):
    for call in (compiled.get_u8, lambda buffer, at: compiled.put_u8(buffer, at, 1)):
        with pytest.raises(TypeError):
            call(other, 0)
    with pytest.raises(TypeError):
        compiled.put_u8(b"12345678", 0, 1)


def test_levels_are_read_where_that_is_exact_and_left_to_a_library_elsewhere(form):
    if form is raw:
        assert form.get_levels(b"[]") is None
        return
    assert form.get_levels(memoryview(b'[["100.250","3"],["0.1","0"]]')) == struct.pack(
        "<4d", 100.25, 3, 0.1, 0
    )
    assert form.get_levels(b"[]") == b""
    exact = b'[["9007199254740992","0.0000000000000000000001"]]'
    assert form.get_levels(exact) == struct.pack("<2d", 2.0**53, 1e-22)
    for at in range(len(exact)):
        assert form.get_levels(exact[:at]) is None, "cut short"
    for text in (
        b'[["9007199254740993","1"]]',
        b'[["1","0.00000000000000000000001"]]',
        b"[[1,2]]",
        b'[["-1","2"]]',
    ):
        assert form.get_levels(text) is None
    with pytest.raises(TypeError):
        form.get_levels("[]")
