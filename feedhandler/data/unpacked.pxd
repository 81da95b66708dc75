# The function of unpacked.py, for compiled modules: `from feedhandler.data cimport unpacked`.

from feedhandler.data cimport raw


cdef inline object ticker(make, str topic, kind, flags_of, bytes data, Py_ssize_t start):
    return make(
        topic,
        raw.get_u8(data, start + 64),
        kind,
        flags_of[raw.get_u16(data, start + 66)],
        raw.get_u32(data, start + 68),
        raw.get_u64(data, start + 72),
        raw.get_i64(data, start + 80),
        raw.get_i64(data, start + 88),
        raw.get_i64(data, start + 96),
        raw.get_u64(data, start + 104),
        raw.get_f64(data, start + 112),
        raw.get_f64(data, start + 120),
        raw.get_f64(data, start + 128),
        raw.get_f64(data, start + 136),
        raw.get_f64(data, start + 144),
        raw.get_f64(data, start + 152),
        raw.get_f64(data, start + 160),
        raw.get_f64(data, start + 168),
        raw.get_f64(data, start + 176),
        raw.get_f64(data, start + 184),
    )
