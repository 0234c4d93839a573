"""
Random calls on a few files by one process, and what each returned: run by test_b_preload.py below libmemkv_preload.so and without it, so that the kernel says
what is right. Left out is what differs on purpose: a file is not read by one descriptor while it is written by another that was opened without it.

    preload_random.py DIR SEED STEPS
"""
import ctypes
import fcntl
import hashlib
import mmap
import os
import random
import subprocess
import sys

NAMES = ["f0", "f1", "f2", "f3", "d/g", "d/e/h"]
SIZES = [0, 1, 7, 100, 4096, 5000, 70000] * 3 + [300000, 1 << 20, (3 << 20) + 1]
LONG = (3 << 20) + 1
FULLY, UNBUFFERED = 0, 2          # of setvbuf()
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fdopen.restype = ctypes.c_void_p
LIBC.ftell.restype = LIBC.fread.restype = LIBC.fwrite.restype = ctypes.c_size_t
WRITES = [os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR,
          os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_TRUNC]


def vector(r):
    return [bytearray(r.choice(SIZES)) for _ in range(r.randrange(1, 4))]


class Stream:
    """A few calls of C on a stream over a duplicate of a descriptor, which is closed with it."""

    def __init__(self, r, fd, say):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        way = {os.O_RDONLY: b"rb", os.O_WRONLY: b"wb", os.O_RDWR: b"r+b"}[flags & os.O_ACCMODE]
        self.r, self.say, self.writes, self.pushed = r, say, False, False
        self.may = (["read"] if b"r" in way else []) + (["write"] if way != b"rb" else [])
        self.f = ctypes.c_void_p(LIBC.fdopen(os.dup(fd), b"ab" if flags & os.O_APPEND else way))
        if r.randrange(3) == 0:
            size = r.choice([0, 1, 100, 4096, 100000, 2 << 20])
            self.buffer = ctypes.create_string_buffer(size + 1)
            say("setvbuf", lambda: LIBC.setvbuf(self.f, self.buffer if size else None, FULLY if size else UNBUFFERED, ctypes.c_size_t(size)))

    def turn(self, writes):
        """C wants a seek between a read and a write."""
        if writes != self.writes:
            self.seek("turn", 0, os.SEEK_CUR)
        self.writes = writes

    def seek(self, what, off, whence):
        """A step from where something is pushed back, and a flush of it, libc itself gets wrong on a disk."""
        if whence == os.SEEK_CUR and self.pushed:
            off, whence = off + LIBC.ftell(self.f), os.SEEK_SET
        self.pushed = False
        self.say(what, lambda: LIBC.fseek(self.f, ctypes.c_long(off), whence))

    def flush(self):
        """The descriptor is where the stream is, and may be read beside it until the next seek."""
        at = LIBC.ftell(self.f)
        if self.pushed:
            self.seek("nothing pushed back", at, os.SEEK_SET)
        self.say("fflush", lambda: LIBC.fflush(self.f))
        self.say("offset", lambda: os.lseek(LIBC.fileno(self.f), 0, os.SEEK_CUR))
        if "read" in self.may and at % 2:
            self.say("raw", lambda: os.read(LIBC.fileno(self.f), self.r.choice(SIZES)))
        self.seek("back", at, os.SEEK_SET)
        LIBC.clearerr(self.f)

    def read(self):
        self.turn(False)
        n = self.r.choice(SIZES)
        to = ctypes.create_string_buffer(n)
        got = LIBC.fread(to, 1, n, self.f)
        self.say("fread", lambda: to.raw[:got])
        c = LIBC.fgetc(self.f)
        self.say("fgetc", lambda: c)
        if c >= 0 and n % 2:
            self.pushed = True
            self.say("ungetc", lambda: LIBC.ungetc(self.r.choice([c, 7]), self.f))

    def write(self):
        self.turn(True)
        data = self.r.randbytes(self.r.choice(SIZES))
        self.say("fwrite", lambda: LIBC.fwrite(data, 1, len(data), self.f))

    def run(self):
        for _ in range(self.r.randrange(1, 6)):
            op = self.r.choice(["seek", "flush", *self.may, *self.may])
            if op == "seek":
                self.seek("fseek", self.r.randrange(100000), self.r.choice([os.SEEK_SET, os.SEEK_CUR]))
            else:
                getattr(self, op)()
            self.say("ftell feof ferror", lambda: (LIBC.ftell(self.f), bool(LIBC.feof(self.f)), bool(LIBC.ferror(self.f))))
        return LIBC.fclose(self.f)


class Run:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.open = {}          # label: (descriptor, name, may it be written)
        self.labels = 0

    def say(self, what, call):
        """What the call returned, or its errno; bytes by their digest. True: it worked."""
        try:
            got = call()
        except OSError as e:
            print(what, "errno", e.errno)
            return False
        print(what, (len(got), hashlib.md5(got).hexdigest()) if isinstance(got, bytes) else got)
        return True

    def of(self, name, writable):
        return any(n == name and w == writable for _, n, w in self.open.values())

    def begin(self, name, flags, writable):
        if self.of(name, not writable):
            return
        try:
            fd = os.open(name, flags, 0o644)
        except OSError as e:
            print("open", name, flags, "errno", e.errno)
            return
        self.keep(fd, name, writable)
        print("open", name, flags)

    def keep(self, fd, name, writable):
        self.open[self.labels] = (fd, name, writable)
        self.labels += 1

    def on_descriptor(self, op):
        label = self.r.choice(sorted(self.open))
        fd, name, writable = self.open[label]
        data, off = self.r.randbytes(self.r.choice(SIZES)), self.r.randrange(9000)
        if op == "dup":
            free = 300 + self.labels % 50
            taken = [f for f, _, _ in self.open.values()]
            self.keep(os.dup(fd) if free in taken or off % 2 else os.dup2(fd, free), name, writable)
        elif op == "close":
            del self.open[label]
            self.say(op, lambda: os.close(fd))
        elif op == "fsync":
            self.say(op, lambda: os.fsync(fd) if writable else None)
        else:
            at = self.r.randrange(LONG) if off % 4 == 0 else off
            self.say(op, {"stream": lambda: (Stream(self.r, fd, self.say).run(), os.lseek(fd, off, os.SEEK_SET)),
                          "readv": lambda: self.all_of(lambda into: os.readv(fd, into)), "preadv": lambda: self.all_of(lambda into: os.preadv(fd, into, at)),
                          "write": lambda: os.write(fd, data), "pwrite": lambda: os.pwrite(fd, data, off), "read": lambda: os.read(fd, LONG if off % 8 == 0 else 10 * off),
                          "pread": lambda: os.pread(fd, LONG if off % 8 == 1 else 100000, at), "seek": lambda: os.lseek(fd, off, os.SEEK_END if off % 3 == 0 else os.SEEK_SET),
                          "fadvise": lambda: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED), "mmap": lambda: self.mapped(fd), "sendfile": lambda: self.sent(fd, at),
                          "fork": lambda: self.forked(fd, len(data)), "spawn": lambda: subprocess.run(["md5sum"], stdin=fd, capture_output=True).stdout,
                          "ftruncate": lambda: os.ftruncate(fd, 2 * off), "fstat": lambda: os.fstat(fd).st_size}[op])

    def mapped(self, fd):
        size = os.fstat(fd).st_size
        if size == 0:
            return b""
        with mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ) as m:
            return m[:]

    def sent(self, fd, off):
        with open("../sent" + str(os.getpid()), "w+b") as to:
            os.unlink(to.name)
            os.sendfile(to.fileno(), fd, off, LONG)
            return os.pread(to.fileno(), LONG, 0)

    def forked(self, fd, n):
        """A child has the same offset."""
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(w, hashlib.md5(os.read(fd, n)).digest())
            except OSError as e:
                os.write(w, b"%d" % e.errno)
            os._exit(0)
        got = os.read(r, 100)
        os.close(r)
        os.close(w)
        return got, os.waitpid(pid, 0)[1], os.lseek(fd, 0, os.SEEK_CUR)

    def all_of(self, call):
        into = vector(self.r)
        return b"".join(into)[:call(into)]

    def on_name(self, op, name):
        if op == "rename":
            to = self.r.choice(NAMES)
            if any(self.of(n, False) for n in (name, to)) or self.of(to, True):
                return
            if self.say(f"rename {name} {to}", lambda: os.rename(name, to)):
                self.open = {k: (f, to if n == name else n, w) for k, (f, n, w) in self.open.items()}
        elif op == "unlink" and not (self.of(name, True) or self.of(name, False)):
            self.say(f"unlink {name}", lambda: os.unlink(name))
        elif op == "look":
            self.say(f"size {name}", lambda: os.stat(name).st_size)
            if not self.of(name, True):
                self.say(f"whole {name}", lambda: whole(name))
            if not self.open:
                self.say("list", lambda: sorted(os.path.join(at, n) for at, _, names in os.walk(".") for n in names))

    def step(self):
        name = self.r.choice(NAMES)
        op = self.r.choice(["create", "create", "open", "write", "write", "pwrite", "read", "pread", "readv", "preadv", "stream", "stream", "seek", "ftruncate", "fstat", "fsync", "dup", "fadvise", "fadvise", "mmap", "sendfile", "fork", "spawn", "close", "close",
                            "close", "rename", "unlink", "look"])
        if op == "create":
            self.begin(name, self.r.choice(WRITES), True)
        elif op == "open":
            self.begin(name, os.O_RDONLY, False)
        elif op in ("rename", "unlink", "look"):
            self.on_name(op, name)
        elif self.open:
            self.on_descriptor(op)


def whole(name):
    with open(name, "rb") as f:
        return f.read()


def main(top, seed, steps):
    os.makedirs(os.path.join(top, "d", "e"))
    os.chdir(top)
    run = Run(int(seed))
    for _ in range(int(steps)):
        run.step()
    for fd, _, _ in run.open.values():
        run.say("close", lambda fd=fd: os.close(fd))
    for name in NAMES:
        run.say(f"end {name}", lambda name=name: whole(name))


main(*sys.argv[1:])
