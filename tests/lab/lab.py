"""
The guest's drives as tests use them: NVMe drives by number, and device-mapper devices over them that fail, wait or write a log.

Runs in the guest of run-lab only, as root; the machine is thrown away afterwards, so what a test leaves behind disturbs the next test at most.
"""
import fcntl
import glob
import os
import struct
import subprocess
import time

DRIVES = os.environ.get("LAB_DRIVES", "").split()


def sh(*args, check=True, timeout=60):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout)
    assert not check or r.returncode == 0, f"{args}: {r.stdout}{r.stderr}"
    return r


def sectors(device):
    return int(sh("blockdev", "--getsz", device).stdout)


def wait_for(what, timeout=30):
    """The first true value of what()."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout} s in vain for {what}")


def controller(i):
    """Where the kernel has drive i now: (its name, the PCI device). None: nowhere."""
    for path in glob.glob("/sys/class/nvme/nvme*"):
        try:
            with open(os.path.join(path, "serial")) as f:
                if f.read().strip() == f"drive{i}" and glob.glob(os.path.join(path, "nvme*n1")):
                    return os.path.basename(glob.glob(os.path.join(path, "nvme*n1"))[0]), os.path.realpath(os.path.join(path, "device"))
        except OSError:
            continue
    return None


def pull(i):
    """As by hand: the drive is gone at once, also for who has it open."""
    with open(os.path.join(controller(i)[1], "remove"), "w") as f:
        f.write("1")


def plug(i):
    """Back in its place; the kernel may call it otherwise than before, the name in /dev/lab is the same."""
    with open("/sys/bus/pci/rescan", "w") as f:
        f.write("1")
    name = wait_for(lambda: controller(i))[0]
    wait_for(lambda: os.path.exists(f"/dev/{name}"))
    link = f"/dev/lab/drive{i}"
    os.unlink(link)
    os.symlink(f"/dev/{name}", link)


def blank(i):
    """Nothing on it, and no table left that names it."""
    sh("blkdiscard", "-f", DRIVES[i])
    sh("dd", "if=/dev/zero", f"of={DRIVES[i]}", "bs=1M", "count=1", "oflag=direct")


class Mapped:
    """A device-mapper device over one drive; its table can be changed while it is in use."""

    def __init__(self, name, i):
        self.name, self.drive, self.size = name, os.path.realpath(DRIVES[i]), sectors(DRIVES[i])
        self.path = f"/dev/mapper/{name}"
        self.hanging = False
        sh("dmsetup", "create", name, "--table", self.linear())

    def linear(self, start=0, n=None):
        return f"{start} {self.size - start if n is None else n} linear {self.drive} {start}"

    def table(self, *rows):
        """Requests under way end first; those that come meanwhile wait."""
        if not self.hanging:
            sh("dmsetup", "suspend", "--nolockfs", self.name)
        sh("dmsetup", "load", self.name, "--table", "\n".join(rows))
        sh("dmsetup", "resume", self.name)
        self.hanging = False

    def good(self):
        self.table(self.linear())

    def errors(self):
        self.table(f"0 {self.size} error")

    def errors_in(self, start, n):
        self.table(self.linear(0, start), f"{start} {n} error", self.linear(start + n))

    def flakey(self, up, down, *features):
        self.table(f"0 {self.size} flakey {self.drive} 0 {up} {down} {len(features)} {' '.join(features)}".rstrip())

    def slow(self, read_ms, write_ms):
        self.table(f"0 {self.size} delay {self.drive} 0 {read_ms} {self.drive} 0 {write_ms}")

    def hang(self):
        """What comes now waits until resume()."""
        sh("dmsetup", "suspend", "--nolockfs", "--noflush", self.name)
        self.hanging = True

    def resume(self):
        sh("dmsetup", "resume", self.name)
        self.hanging = False

    def close(self):
        if self.hanging:
            self.resume()
        wait_for(lambda: sh("dmsetup", "remove", self.name, check=False).returncode == 0)


class Marks:
    """Messages to a device-mapper target without a process for each: the ioctl behind `dmsetup message`."""

    TARGET_MSG = (3 << 30) | (312 << 16) | (0xfd << 8) | 14		# _IOWR(0xfd, 14, struct dm_ioctl)

    def __init__(self, name):
        self.fd = os.open("/dev/mapper/control", os.O_RDWR)
        self.name = name.encode()

    def message(self, text):
        body = struct.pack("<Q", 0) + text.encode() + b"\0"
        size = 312 + len(body)
        head = struct.pack("<10IQ", 4, 0, 0, size, 312, 0, 0, 0, 0, 0, 0)
        head = head.ljust(48, b"\0") + self.name.ljust(128, b"\0")
        fcntl.ioctl(self.fd, self.TARGET_MSG, bytearray(head.ljust(312, b"\0") + body))

    def mark(self, text):
        self.message("mark " + text)
