"""Package databases of strangers."""

from orlop.store.packages import is_database, parse_packages

STATUS = b"""Package: libc6
Status: install ok installed
Version: 2.36-9
Description: C library
 Package: not-a-field

Package: removed
Status: deinstall ok config-files
Version: 1

Package: broken
Status: install ok installed
"""
APK = b"C:Q1abc\nP:musl\nV:1.2.5-r0\n\nP:zlib\nV:1.3-r2\nF:lib\n"


def test_dpkg_lists_what_is_installed():
    assert parse_packages(b"var/lib/dpkg/status", STATUS) == {"libc6": "2.36-9"}


def test_images_without_a_shell_have_a_file_for_each_package():
    assert is_database(b"var/lib/dpkg/status.d/base")
    assert not is_database(b"var/lib/dpkg/status.d/base.md5sums")
    assert parse_packages(b"var/lib/dpkg/status.d/base", b"Package: base\nVersion: 1\n") == {"base": "1"}


def test_apk_lists_names_and_versions():
    assert parse_packages(b"lib/apk/db/installed", APK) == {"musl": "1.2.5-r0", "zlib": "1.3-r2"}


def test_rubbish_gives_nothing():
    assert parse_packages(b"var/lib/dpkg/status", b"\xff\x00:::\n\n\n" * 1000) == {}
