import os

from orlop.kernel import process
from orlop.runtime import rundir
from orlop.runtime.rundir import Record
from orlop.runtime.spec import ExitRecord


def open_dir(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_records_are_written_whole_and_read_back(tmp_path):
    fd = open_dir(tmp_path)
    record = Record("i" * 64, 1, 2, 3, 4, "orlop/x", started_at_ns=5)

    rundir.write_record(fd, record)
    rundir.write_exit(fd, ExitRecord(7, 8, is_oom_killed=True))

    assert rundir.read_record(str(tmp_path)) == record
    assert rundir.read_exit(str(tmp_path)) == ExitRecord(7, 8, is_oom_killed=True)
    assert sorted(os.listdir(tmp_path)) == ["exit", "record"]
    assert os.stat(tmp_path / "record").st_mode & 0o777 == 0o600
    os.close(fd)


def test_nothing_and_rubbish_are_no_record(tmp_path):
    assert rundir.read_record(str(tmp_path)) is None
    assert rundir.read_exit(str(tmp_path / "missing")) is None

    for text in ("", "{", "[1]", '{"id": 1}'):
        (tmp_path / "record").write_text(text)
        assert rundir.read_record(str(tmp_path)) is None


def test_a_record_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text('{"exit_code": 0, "finished_at_ns": 1}')
    (tmp_path / "exit").symlink_to("elsewhere")

    assert rundir.read_exit(str(tmp_path)) is None


def test_the_socket_works_at_any_path_length(tmp_path):
    deep = tmp_path / ("x" * 120) / ("y" * 120)
    deep.mkdir(parents=True)
    fd = open_dir(deep)

    assert rundir.connect(str(deep)) is None
    with rundir.listen(fd) as listener, rundir.connect(str(deep)) as client:
        client.send(b"hello")
        server, _ = listener.accept()
        assert server.recv(10) == b"hello"
        server.close()
    assert rundir.connect(str(deep)) is None
    os.close(fd)


def test_a_process_is_known_by_pid_and_start(tmp_path):
    ticks = process.start_ticks(os.getpid())

    assert ticks > 0
    assert rundir.is_alive(os.getpid(), ticks)
    assert not rundir.is_alive(os.getpid(), ticks + 1)
    assert process.start_ticks(2**22 - 1) == 0


def test_clearing_forgets_the_last_run_and_may_be_repeated(tmp_path):
    fd = open_dir(tmp_path)
    rundir.write_record(fd, Record("i" * 64, 1, 2, 3, 4, "orlop/x"))
    rundir.write_exit(fd, ExitRecord(7, 8))

    rundir.clear(str(tmp_path))
    rundir.clear(str(tmp_path))

    assert os.listdir(tmp_path) == []
    os.close(fd)


def test_a_socket_that_a_later_supervisor_made_stays(tmp_path):
    fd = open_dir(tmp_path)
    with rundir.listen(fd):
        first = rundir.socket_inode(fd)
        with rundir.listen(fd):
            second = rundir.socket_inode(fd)

            rundir.unlink_socket(fd, first)
            assert rundir.socket_inode(fd) == second
            rundir.unlink_socket(fd, second)
            assert rundir.socket_inode(fd) == 0
    os.close(fd)
