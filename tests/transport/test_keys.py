"""Key files, as other people's tools make and read them, and a directory of those who may connect."""

import stat

import pytest
import zmq.auth
from zmq.utils import z85

from feedhandler.data.errors import ConfigError
from feedhandler.transport import keys
from feedhandler.transport.keys import Clients


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clients").mkdir()
    return tmp_path


def clients(folder):
    found = Clients(str(folder / "clients"), "curve.clients")
    found._looked_mono_s = -1e9
    return found


def later(found):
    """As if a second had passed."""
    found._looked_mono_s = -1e9
    return found


def test_a_pair_is_for_other_tools_as_well_and_the_secret_for_its_owner_alone(folder):
    public, secret = keys.make(folder / "new", "desk-1")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    pair = keys.load_pair(str(secret), "curve.key")
    assert zmq.auth.load_certificate(secret) == (z85.encode(pair.public), z85.encode(pair.secret))
    assert keys.load_public(str(public), "curve.server") == pair.public


def test_what_others_have_made_is_read(folder):
    public, secret = zmq.auth.create_certificates(folder, "theirs", {"name": "desk 2"})
    assert keys.load_pair(secret, "k").public == keys.load_public(public, "k")


def test_nothing_is_overwritten(folder):
    keys.make(folder, "a")
    before = (folder / "a.key_secret").read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        keys.make(folder, "a")
    assert (folder / "a.key_secret").read_bytes() == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "ä", "x" * 101])
def test_a_name_that_is_none_is_refused(folder, name):
    with pytest.raises(ConfigError, match="is no name for a key"):
        keys.make(folder, name)


def test_errors_name_the_key_of_the_configuration_and_the_file_and_show_no_key(folder):
    public, secret = keys.make(folder, "a")
    with pytest.raises(ConfigError, match=r"curve\.key: .*nowhere.*no such file.*keys make"):
        keys.load_pair(str(folder / "nowhere"), "curve.key")
    with pytest.raises(ConfigError, match="has only a public key"):
        keys.load_pair(str(public), "curve.key")
    with pytest.raises(
        ConfigError, match="has a secret key, which belongs on the host of its owner"
    ) as caught:
        keys.load_public(str(secret), "curve.server")
    text = secret.read_text().split('secret-key = "')[1].split('"')[0]
    assert text not in str(caught.value)
    for junk in (
        b"",
        b"public-key = short",
        b'public-key = "' + b"#" * 40 + b'"',
        b"\xff\xfe",
        b'public-key = "' + b"~" * 40 + b'"',
        b"public-key",
    ):
        (folder / "junk").write_bytes(junk)
        with pytest.raises(ConfigError, match="is no key file"):
            keys.load_public(str(folder / "junk"), "k")


def test_who_may_connect_is_followed_while_running(folder):
    public, _ = keys.make(folder, "desk-1")
    found = clients(folder)
    key = keys.load_public(str(public), "k")
    assert not found.has(key)
    target = keys.authorize(str(public), folder / "clients")
    assert later(found).has(key)
    assert list(found.names()) == ["desk-1"]
    other, _ = keys.make(folder, "other")
    other.replace(target)  # the same name with another key
    assert not later(found).has(key)
    assert later(found).has(keys.load_public(str(target), "k"))
    assert keys.revoke("desk-1", folder / "clients") == target
    assert not later(found).has(key)
    assert found.names() == {}


def test_a_file_that_is_no_key_harms_no_other(folder, caplog):
    public, secret = keys.make(folder, "desk-1")
    keys.authorize(str(public), folder / "clients")
    (folder / "clients" / "broken.key").write_text("junk")
    (folder / "clients" / "stolen.key").write_bytes(secret.read_bytes())
    found = clients(folder)
    assert found.has(keys.load_public(str(public), "k"))
    assert list(found.names()) == ["desk-1"]
    assert caplog.text.count("passed over") == 2
    later(found).has(b"")
    assert caplog.text.count("passed over") == 2, "once"


def test_a_directory_that_is_away_changes_nothing(folder, caplog):
    public, _ = keys.make(folder, "desk-1")
    keys.authorize(str(public), folder / "clients")
    found = clients(folder)
    (folder / "clients").rename(folder / "away")
    assert later(found).has(keys.load_public(str(public), "k"))
    assert "who may connect stays as it is" in caplog.text


def test_a_directory_that_is_not_there_yet_is_an_empty_one(folder, caplog):
    (folder / "clients").rmdir()
    public, _ = keys.make(folder, "desk-1")
    found = clients(folder)
    assert found.names() == {}
    keys.authorize(str(public), folder / "clients")
    assert later(found).has(keys.load_public(str(public), "k"))
    assert "ERROR" not in caplog.text


def test_a_file_in_the_place_of_a_directory_is_refused(folder):
    (folder / "clients").rmdir()
    (folder / "clients").write_text("")
    with pytest.raises(ConfigError, match=r"curve\.clients: .*/clients is no directory"):
        clients(folder)


def test_authorizing_twice_or_a_secret_and_revoking_nothing_are_refused(folder):
    public, secret = keys.make(folder, "a")
    keys.authorize(str(public), folder / "clients")
    with pytest.raises(ConfigError, match="exists already; revoke it first"):
        keys.authorize(str(public), folder / "clients")
    with pytest.raises(ConfigError, match="has a secret key"):
        keys.authorize(str(secret), folder / "clients")
    with pytest.raises(ConfigError, match="no such key"):
        keys.revoke("b", folder / "clients")
