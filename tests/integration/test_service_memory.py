"""What the server takes of memory while people send it files that are small and unpack large."""

from __future__ import annotations

import re
import struct
import threading
import urllib.request
import zlib
from pathlib import Path

import pytest
from tests.browser.served import Service, serving

pytestmark = pytest.mark.slow

SIDE = 6300
"""Of a picture that is just not too large: 120 MB of pixels."""
MOST_MIB = 120
PROC = Path("/proc")


def picture() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (1 + 3 * SIDE)) for _ in range(SIDE)) + packer.flush()
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def send(address: str, data: bytes) -> int:
    head = b'--end\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
    body = head + data + b"\r\n--end--\r\n"
    request = urllib.request.Request(
        f"{address}/v1/uploads", body, {"Content-Type": "multipart/form-data; boundary=end"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return answer.status


def peak_mib(process: str) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", (PROC / process / "status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def servers(folder: Path) -> list[str]:
    """Numbers of the processes that serve from a folder."""
    found = []
    for each in PROC.iterdir():
        try:
            said = (each / "cmdline").read_bytes() if each.name.isdigit() else b""
        except OSError:  # it has ended meanwhile
            continue
        if b"serve" in said and str(folder).encode() in said:
            found.append(each.name)
    return found


@pytest.mark.skipif(not PROC.is_dir(), reason="there is no /proc here")
def test_the_server_stays_small_whatever_is_sent(tmp_path: Path) -> None:
    data = picture()
    assert len(data) < 200_000
    with serving(tmp_path, "--workers", "0") as address:
        (process,) = servers(tmp_path)
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(send(address, data))) for _ in range(8)]
        for each in threads:
            each.start()
        assert Service(address).call("GET", "/v1/models")["data"]  # others are answered meanwhile
        for each in threads:
            each.join()
        assert results == [200] * 8
        assert peak_mib(process) < MOST_MIB
