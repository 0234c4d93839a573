"""
By which way the clients of process tests go to their servers. MEMKV_TEST_TRANSPORT=local: by the server's unix socket.
MEMKV_TEST_TRANSPORT=rdma, in the lab's guest (run-lab --nics 2): the same test bodies with the client at the first soft-RoCE device and the server at the second; those that are meant for it have the mark over_rdma or over_rdma_full.
"""
import os

NICS = os.environ.get("LAB_NICS", "").split()
ADDRESSES = os.environ.get("LAB_ADDRESSES", "").split()
KEY = "5a" * 32                         # a test key: what is not on loopback needs one
TRANSPORT = os.environ.get("MEMKV_TEST_TRANSPORT", "tcp")
OVER_RDMA = TRANSPORT == "rdma"


def client_options():
    """What a client has that its test does not say."""
    return {"transport": "rdma", "rdma_devices": NICS[0], "auth_key": KEY} if OVER_RDMA else {"transport": TRANSPORT}


def server_sets(sets):
    """What a server is started with, of what its test says. Where there are devices its clients are on its own host and shall not notice."""
    more = ["local.path=-"] if NICS else []
    if OVER_RDMA:
        sets = [f"network.address={ADDRESSES[1]}:0" if s == "network.address=127.0.0.1:0" else s for s in sets]
        more += [f"rdma.devices=[{NICS[1]}]", f"network.auth_key={KEY}"]
    theirs = [s.split("=", 1)[0] for s in sets]
    return sets + [s for s in more if s.split("=", 1)[0] not in theirs]


def environment():
    """Of the programs that a test runs as a client."""
    return {"MEMKV_TRANSPORT": "rdma", "MEMKV_RDMA_DEVICES": NICS[0], "MEMKV_AUTH_KEY": KEY} if OVER_RDMA else {"MEMKV_TRANSPORT": TRANSPORT}


def rails_are_up(rows):
    """Of a server's status."""
    rails = [r["state"] for n, r in rows.items() if n.startswith("front:rdma:")]
    return not OVER_RDMA or (rails != [] and all(s == "RUNNING" for s in rails))
