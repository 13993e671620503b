"""Files of jobs: uploads, results, previews and segments, in a folder or behind a URL of fsspec."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Literal, Protocol, cast

from muybridge.errors import NotFoundError, OutputError, StoreError
from muybridge.files.atomic import output_error
from muybridge.jobs.record import Job, is_job_id

UploadKind = Literal["picture", "video"]
UPLOAD_ID = re.compile(r"upload_[0-9a-f]{32}")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_KEY = re.compile(r"(results|previews)/video_[0-9a-f]{32}(/[0-9]{1,3}/[a-z]{1,16})?\.[a-z0-9]{1,8}")
_CHUNK = 1 << 20
_COPIES_KEPT_S = 86_400.0
_UNFINISHED_KEPT_S = 86_400.0
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part")


@dataclass(frozen=True)
class Upload:
    """A file that somebody gave, under a name of ours.

    Attributes:
        id: cannot be guessed.
        owner: whose it is.
        suffix: of the kind of file that it was found to be.
    """

    id: str
    kind: UploadKind
    suffix: str
    owner: str
    created: float
    size: int
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None


@dataclass(frozen=True)
class About:
    """What is known of a file that is to become an `Upload`; see there."""

    kind: UploadKind
    suffix: str
    owner: str
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class FileStore:
    """Files by keys of ours; nothing that comes from outside becomes part of a path unchecked.

    What is written appears whole or not at all: it has another name until it is complete.
    """

    def __init__(self, filesystem: Any, root: str, cache: Path, is_local: bool) -> None:
        """Of a file system of fsspec and a folder in it; see `open`."""
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._cache = cache
        self.is_local = is_local

    @classmethod
    def open(cls, url: str, cache: Path | None = None) -> FileStore:
        """Open a store of files.

        Args:
            url: a folder, or a URL that fsspec knows, as in `s3://bucket/folder`; its driver must be installed.
            cache: where files that lie elsewhere are kept on this machine; a temporary folder by default.

        Raises:
            StoreError: no such file system, or a folder that cannot be made.
        """
        import fsspec

        try:
            filesystem, root = fsspec.url_to_fs(url)
            filesystem.makedirs(root, exist_ok=True)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"Files cannot be kept at {url}: {error}. Give a folder, or install what it needs."
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"Files cannot be kept at {url}: {reason}. Give a folder that you may write to."
            ) from error
        is_local = "file" in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,))
        if is_local:
            return cls(filesystem, root, Path(root), is_local=True)
        kept = cache or Path(tempfile.gettempdir()) / f"muybridge-files-{os.getuid()}"
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(filesystem, root, kept, is_local=False)

    # ------------------------------------------------------------------ uploads

    def put_upload(self, stream: _Readable, about: About, created: float, most_bytes: int | None = None) -> Upload:
        """Keep what is read from a stream.

        Raises:
            OutputError: it cannot be written, or has more than `most_bytes`; nothing is left behind.
        """
        if _SUFFIX.fullmatch(about.suffix) is None:
            raise OutputError(f"{about.suffix!r} is no ending of a file.")
        upload_id = f"upload_{secrets.token_hex(16)}"
        key = f"uploads/{upload_id}{about.suffix}"
        with _Writing(self, key) as file:
            size = 0
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if most_bytes is not None and size > most_bytes:
                    raise OutputError(f"A file may have {most_bytes} bytes; this one has more.")
                file.write(chunk)
        upload = Upload(upload_id, size=size, created=created, **asdict(about))
        with _Writing(self, f"uploads/{upload_id}.json") as file:
            file.write(json.dumps(asdict(upload)).encode())
        return upload

    def upload(self, upload_id: str, owner: str | None = None) -> Upload | None:
        """What is known of an upload; None where there is none, or it is another owner's."""
        if UPLOAD_ID.fullmatch(upload_id) is None:
            return None
        try:
            text = self._filesystem.cat_file(self._at(f"uploads/{upload_id}.json"))
        except FileNotFoundError:
            return None
        try:
            found = Upload(**json.loads(text))
        except (ValueError, TypeError):  # damaged; nobody can say what the file is
            return None
        return found if owner is None or found.owner == owner else None

    def local_upload(self, upload_id: str) -> Path:
        """A path on this machine.

        Raises:
            NotFoundError: there is no such upload.
        """
        found = self.upload(upload_id)
        if found is None:
            raise NotFoundError(f"There is no file {upload_id}; upload it again.")
        return self._local(f"uploads/{upload_id}{found.suffix}", f"There is no file {upload_id}; upload it again.")

    def uploads(self) -> list[Upload]:
        """All of them."""
        names = [PurePosixPath(each).stem for each in self._listed("uploads") if each.endswith(".json")]
        return [found for name in names if (found := self.upload(name)) is not None]

    def remove_upload(self, upload_id: str) -> None:
        """Remove it, if it is there."""
        if (found := self.upload(upload_id)) is not None:
            self._remove(f"uploads/{upload_id}{found.suffix}")
            self._remove(f"uploads/{upload_id}.json")

    # ------------------------------------------------------------------ results

    def put_result(self, job: Job, variant: str, path: Path) -> str:
        """Move a finished file into the store; each attempt has a place of its own.

        Returns:
            Its key.

        Raises:
            OutputError: it cannot be written; nothing is left behind.
        """
        key = f"results/{job.id}/{job.attempts}/{variant}{path.suffix}"
        if self.is_local:
            self._move(path, Path(self._at(key)))
            return key
        with _Writing(self, key) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file, _CHUNK)
        path.unlink()
        return key

    def open_result(self, key: str) -> BinaryIO:
        """Open a result, to be read from any place in it.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            return cast("BinaryIO", self._filesystem.open(self._at(_checked(key)), "rb"))
        except FileNotFoundError as error:
            raise NotFoundError("The file is not there any more.") from error

    def local_result(self, key: str) -> Path:
        """A path on this machine. Raises as `open_result`."""
        return self._local(_checked(key), "The file is not there any more.")

    def size(self, key: str) -> int:
        """Bytes of a result. Raises as `open_result`."""
        try:
            return int(self._filesystem.size(self._at(_checked(key))))
        except FileNotFoundError as error:
            raise NotFoundError("The file is not there any more.") from error

    def keep_only(self, job: Job) -> None:
        """Remove what attempts before this one have left of results."""
        for each in self._listed(f"results/{job.id}"):
            if PurePosixPath(each).name != str(job.attempts):
                with contextlib.suppress(FileNotFoundError):  # another process is at it too
                    self._filesystem.rm(each, recursive=True)

    def remove_attempt(self, job: Job) -> None:
        """Remove what this attempt has left, and only this: another one may be at it."""
        self._remove(f"results/{_checked_id(job.id)}/{job.attempts}")
        shutil.rmtree(self._attempt_folder(job), ignore_errors=True)

    # ------------------------------------------------------------------ previews, segments, places to work

    def put_preview(self, job: Job, data: bytes) -> None:
        """Put a preview in place of the one before, on behalf of an attempt that has a `work_folder`.

        Raises:
            OutputError: it cannot be written, or the attempt has lost its folder.
        """
        if not self.is_local:
            with _Writing(self, _preview(job.id)) as file:
                file.write(data)
            return
        # It waits where an attempt that is killed leaves nothing for good.
        unfinished = self._attempt_folder(job) / f".{secrets.token_hex(8)}.part"
        try:
            unfinished.write_bytes(data)
        except OSError as error:
            raise output_error(unfinished, error) from error
        self._move(unfinished, Path(self._at(_preview(job.id))))

    def preview(self, job_id: str) -> bytes | None:
        """The last preview; None where there is none."""
        try:
            return self._filesystem.cat_file(self._at(_preview(job_id)))
        except FileNotFoundError:
            return None

    def work_folder(self, job: Job) -> Path:
        """A folder of this machine for one attempt at a job; it takes over what the attempt before has made.

        Renaming takes the folder away from a process that is still at it without knowing that it lost the job.
        """
        own = self._attempt_folder(job)
        own.parent.mkdir(parents=True, exist_ok=True)
        if not own.exists():
            earlier = [each for each in own.parent.iterdir() if each.name.isdigit()]
            if earlier:
                max(earlier, key=lambda each: int(each.name)).rename(own)
            own.mkdir(exist_ok=True)
        return own

    def _attempt_folder(self, job: Job) -> Path:
        return self._cache / "work" / _checked_id(job.id) / str(job.attempts)

    @property
    def maps_folder(self) -> Path:
        """A folder of this machine for how models are previewed, which finished videos teach."""
        return self._cache / "preview_maps"

    def remove_work(self, job_id: str) -> None:
        """Remove what was made on the way."""
        shutil.rmtree(self._cache / "work" / _checked_id(job_id), ignore_errors=True)

    def keep_segments(self, job_id: str, folder: Path) -> None:
        """Keep the finished segments of a long video, so that some can be made anew."""
        if not folder.is_dir():
            return
        place = self._at(f"segments/{_checked_id(job_id)}")
        if self.is_local:
            shutil.rmtree(place, ignore_errors=True)
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(str(folder), place)
        else:
            self._filesystem.put(f"{folder}/", f"{place}/", recursive=True)

    def take_segments(self, job_id: str, folder: Path) -> None:
        """Copy the segments of a job to a folder that is not there yet.

        Raises:
            NotFoundError: they are not kept any more.
        """
        place = self._at(f"segments/{_checked_id(job_id)}")
        if not self._filesystem.isdir(place):
            raise NotFoundError(f"The segments of {job_id} are not kept any more; make the whole video again.")
        if self.is_local:
            shutil.copytree(place, folder)
        else:
            self._filesystem.get(f"{place}/", f"{folder}/", recursive=True)

    def has_segments(self, job_id: str) -> bool:
        """Whether segments of a job are kept."""
        return bool(self._filesystem.isdir(self._at(f"segments/{_checked_id(job_id)}")))

    # ------------------------------------------------------------------ all of it

    def remove(self, job_id: str) -> None:
        """Remove all files of a job but its uploads, which others may need."""
        for place in (f"results/{_checked_id(job_id)}", f"segments/{job_id}"):
            self._remove(place)
        self._remove(_preview(job_id))
        self.remove_work(job_id)

    def jobs_with_files(self) -> set[str]:
        """Ids of jobs that have any."""
        kinds = ("results", "segments", "previews")
        names = {PurePosixPath(each).stem for kind in kinds for each in self._listed(kind)}
        return {name for name in names if is_job_id(name)} | self.jobs_with_work()

    def jobs_with_work(self) -> set[str]:
        """Ids of jobs of which something is left on this machine that was made on the way."""
        work = self._cache / "work"
        names = {each.name for each in work.iterdir()} if work.is_dir() else set()
        return {name for name in names if is_job_id(name)}

    def remove_unfinished(self, unused_seconds: float = _UNFINISHED_KEPT_S) -> None:
        """Remove what somebody began to upload, or to put in place, and did not end; of so long ago."""
        before = time.time() - unused_seconds
        for folder in ("uploads", "previews"):
            names = {PurePosixPath(each).name: each for each in self._listed(folder)}
            for name, place in names.items():
                is_whole = f"{PurePosixPath(name).stem}.json" in names if folder == "uploads" else True
                if (_UNFINISHED.fullmatch(name) or not is_whole) and self._modified(place) < before:
                    with contextlib.suppress(FileNotFoundError):
                        self._filesystem.rm_file(place)

    def _modified(self, place: str) -> float:
        """Seconds of the epoch; never, where the file system does not say, or the file is gone."""
        try:
            return self._filesystem.modified(place).timestamp()
        except (NotImplementedError, FileNotFoundError):
            return math.inf

    def remove_copies(self, unused_seconds: float = _COPIES_KEPT_S) -> None:
        """Remove copies on this machine, of files that lie elsewhere, that nobody has asked for in so long."""
        before = time.time() - unused_seconds
        for each in sorted((self._cache / "copies").rglob("*"), reverse=True):
            with contextlib.suppress(OSError):  # another process is at it too, or a folder still holds something
                if each.is_dir():
                    if each.stat().st_mtime < before:
                        each.rmdir()
                elif each.stat().st_mtime < before:
                    doomed = each.with_name(f".{secrets.token_hex(8)}.old")
                    each.rename(doomed)
                    if doomed.stat().st_mtime < before:
                        doomed.unlink()
                    else:  # asked for in this moment
                        doomed.rename(each)

    def usage(self) -> int:
        """Bytes of all files."""
        self._filesystem.invalidate_cache()
        return int(self._filesystem.du(self._root)) if self._filesystem.exists(self._root) else 0

    def size_of(self, job_id: str) -> int:
        """Bytes of what `remove` would remove."""
        keys = (f"results/{_checked_id(job_id)}", f"segments/{job_id}", _preview(job_id))
        places = [self._at(key) for key in keys]
        return sum(int(self._filesystem.du(each)) for each in places if self._filesystem.exists(each))

    # ------------------------------------------------------------------ inside

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _listed(self, folder: str) -> list[str]:
        try:
            return [str(each) for each in self._filesystem.ls(self._at(folder), detail=False, refresh=True)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _remove(self, key: str) -> None:
        try:
            self._filesystem.rm(self._at(key), recursive=True)
        except FileNotFoundError:
            return

    def _local(self, key: str, missing: str) -> Path:
        if self.is_local:
            path = Path(self._at(key))
            if not path.is_file():
                raise NotFoundError(missing)
            return path
        path = self._cache / "copies" / key
        if path.is_file():
            with contextlib.suppress(OSError):
                os.utime(path)  # it is still used
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            self._filesystem.get_file(self._at(key), str(temporary))
            temporary.replace(path)
        except FileNotFoundError as error:
            raise NotFoundError(missing) from error
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _move(self, path: Path, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(0o600)
            path.replace(target)
        except OSError as error:
            raise output_error(target, error) from error


class _Writing:
    """A file of a store that appears when the block ends well."""

    def __init__(self, store: FileStore, key: str) -> None:
        self._filesystem = store._filesystem
        self._target = store._at(key)
        self._is_local = store.is_local
        above, _, name = self._target.rpartition("/")
        self._temporary = f"{above}/.{secrets.token_hex(8)}.part"
        self._name = name

    def __enter__(self) -> IO[bytes]:
        try:
            self._filesystem.makedirs(self._target.rpartition("/")[0], exist_ok=True)
            if self._is_local:
                descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._file: Any = os.fdopen(descriptor, "wb")
            else:
                self._file = self._filesystem.open(self._temporary, "wb")
        except OSError as error:
            raise output_error(Path(self._name), error) from error
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._file.close()
            if error is None:
                self._place()
        except OSError as found:
            error = found
        if error is None:
            return
        if self._filesystem.exists(self._temporary):
            self._filesystem.rm_file(self._temporary)
        if isinstance(error, OSError):
            raise output_error(Path(self._name), error) from error

    def _place(self) -> None:
        if self._is_local:
            Path(self._temporary).replace(self._target)
        else:
            self._filesystem.mv(self._temporary, self._target)


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise NotFoundError("The file is not there any more.")
    return key


def _checked_id(job_id: str) -> str:
    if not is_job_id(job_id):
        raise NotFoundError(f"There is no video {job_id!r:.60}.")
    return job_id


def _preview(job_id: str) -> str:
    return f"previews/{_checked_id(job_id)}.webp"
