import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend, RunResult } from "../backend.ts";
import {
  containersLabelled,
  docker,
  openTestBackend,
  printed,
  python,
  runIn,
  shell,
  specOf,
  whyNoEngine,
} from "./test-engine.ts";

const skipped = await whyNoEngine();

/** What a program inside sees of its own confinement, key by key. */
const LOOK_AROUND = `
import json, os, socket, sys, time
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def attempt(action):
    try:
        action()
        return "done"
    except OSError as error:
        return error.strerror
def reach(address):
    with socket.create_connection(address, timeout=2): pass
seen = {
    "uid": status["Uid"].split(), "gid": status["Gid"].split(), "groups": status["Groups"].split(),
    "capabilities": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privs": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "hostname": socket.gethostname(), "env": sorted(os.environ), "cwd": os.getcwd(),
    "write_root": attempt(lambda: open("/x", "w")), "write_etc": attempt(lambda: open("/etc/passwd", "a")),
    "write_proc": attempt(lambda: open("/proc/sys/kernel/core_pattern", "w")),
    "write_sys": attempt(lambda: open("/sys/kernel/uevent_helper", "w")),
    "write_tmp": attempt(lambda: open("/tmp/x", "w")), "write_work": attempt(lambda: open("/work/x", "w")),
    "mknod": attempt(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))),
    "reach_out": attempt(lambda: reach(("1.1.1.1", 80))), "engine": os.path.exists("/var/run/docker.sock"),
    "kcore": open("/proc/kcore", "rb").read(1).hex() if os.access("/proc/kcore", os.R_OK) else "",
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "oom_score_adj": open("/proc/self/oom_score_adj").read().strip(),
    "core": __import__("resource").getrlimit(__import__("resource").RLIMIT_CORE),
    "files": __import__("resource").getrlimit(__import__("resource").RLIMIT_NOFILE),
}
print(json.dumps(seen))
`;

describe.skipIf(skipped !== "")(`what a program sees of its confinement ${skipped}`, () => {
  let seen: Readonly<Record<string, unknown>>;
  beforeAll(async () => {
    await using backend = await openTestBackend();
    const result = await runIn(backend, python(LOOK_AROUND));
    expect(result).toMatchObject({ end: "exited", exitCode: 0, stderr: "" });
    seen = JSON.parse(result.resultJson);
  });

  const none = "0000000000000000";
  const cases: readonly (readonly [string, unknown])[] = [
    ["uid", ["65532", "65532", "65532", "65532"]],
    ["gid", ["65532", "65532", "65532", "65532"]],
    ["groups", ["65532"]],
    ["capabilities", [none, none, none, none, none]],
    ["no_new_privs", "1"],
    ["seccomp", "2"],
    ["interfaces", ["lo"]],
    ["hostname", "sandbox"],
    ["env", ["HOME", "LANG", "PATH"]],
    ["cwd", "/work"],
    ["write_root", "Read-only file system"],
    ["write_etc", expect.stringMatching(/Permission denied|Read-only/)],
    ["write_proc", expect.stringMatching(/Permission denied|Read-only/)],
    ["write_sys", expect.stringMatching(/Permission denied|Read-only|No such file/)],
    ["write_tmp", "done"],
    ["write_work", "done"],
    ["mknod", "Operation not permitted"],
    ["reach_out", "Network is unreachable"],
    ["engine", false],
    ["kcore", ""],
    ["processes", 2],
    ["oom_score_adj", "1000"],
    ["core", [0, 0]],
    ["files", [1024, 1024]],
  ];
  test.each(cases)("%s", (key, expected) => expect(seen[key]).toEqual(expected));
});

describe.skipIf(skipped !== "")(`what the engine says of a running container ${skipped}`, () => {
  test("is what was asked for", async () => {
    const runnerId = `test-${crypto.randomUUID()}`;
    await using backend = await openTestBackend({ runnerId });
    const cancel = new AbortController();
    const { seen, onOutput } = printed("up");
    const program = shell("echo up; sleep 60", { limits: { memoryBytes: 48 << 20, pids: 7 } });
    const running = runIn(backend, program, { signal: cancel.signal, onOutput });
    await seen;
    const [listed] = await containersLabelled(`interlock.runner=${runnerId}`);
    const found = await docker.getContainer(listed?.Id ?? "").inspect();
    cancel.abort();
    await running;
    expect(found.Config).toMatchObject({ User: "65532:65532", Tty: false, NetworkDisabled: true });
    expect(found.Config.Image).toMatch(/^sha256:/);
    expect(found.HostConfig).toMatchObject({
      ...{ NetworkMode: "none", IpcMode: "none", PidMode: "", CgroupnsMode: "private", Privileged: false },
      ...{
        ReadonlyRootfs: true,
        CapDrop: ["ALL"],
        CapAdd: [],
        GroupAdd: [],
        Devices: [],
        Binds: [],
        AutoRemove: false,
      },
      ...{ Memory: 48 << 20, MemorySwap: 48 << 20, PidsLimit: 8, NanoCpus: 1e9, OomScoreAdj: 900 },
      LogConfig: { Type: "none" },
      Tmpfs: {
        "/tmp": "rw,nosuid,nodev,noexec,size=64m,mode=1777",
        "/work": "rw,nosuid,nodev,noexec,size=64m,mode=0700,uid=65532,gid=65532",
      },
      Ulimits: [
        { Name: "core", Soft: 0, Hard: 0 },
        { Name: "nofile", Soft: 1024, Hard: 1024 },
        { Name: "fsize", Soft: 64 << 20, Hard: 64 << 20 },
      ],
      MaskedPaths: expect.arrayContaining(["/proc/kcore", "/proc/keys", "/proc/sched_debug", "/sys/firmware"]),
      ReadonlyPaths: expect.arrayContaining(["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"]),
    });
    expect(found.HostConfig.SecurityOpt).toEqual(["no-new-privileges", expect.stringMatching(/^seccomp=\{"/)]);
    expect(Object.keys(found.NetworkSettings.Networks).filter((name) => name !== "none")).toEqual([]);
    expect(found.Mounts).toEqual([]);
  });
});

/** x86-64 number and arguments, or the address family of a socket: each is refused inside. */
const REFUSED: readonly { readonly name: string; readonly call: string }[] = [
  { name: "keyctl", call: "syscall(250, 0, -3, 0)" },
  { name: "add_key", call: "syscall(248, 0, 0, 0, 0, 0)" },
  { name: "io_uring_setup", call: "syscall(425, 8, buffer)" },
  { name: "userfaultfd", call: "syscall(323, 1)" },
  { name: "bpf", call: "syscall(321, 0, buffer, 120)" },
  { name: "perf_event_open", call: "syscall(298, buffer, 0, -1, -1, 0)" },
  { name: "ptrace", call: "syscall(101, 0, 0, 0, 0)" },
  { name: "process_vm_readv", call: "syscall(310, os.getpid(), 0, 0, 0, 0, 0)" },
  { name: "unshare of a user namespace", call: "syscall(272, 0x10000000)" },
  { name: "clone into a user namespace", call: "syscall(56, 0x10000000 | 17, 0, 0, 0, 0)" },
  { name: "clone3", call: "syscall(435, 0, 0)" },
  { name: "setns", call: "syscall(308, 0, 0)" },
  { name: "mount", call: "syscall(165, 0, 0, 0, 0, 0)" },
  { name: "fsopen", call: "syscall(430, 0, 0)" },
  { name: "open_by_handle_at", call: "syscall(304, 0, 0, 0)" },
  { name: "personality of another system", call: "syscall(135, 0x0400000)" },
  { name: "a socket of AF_VSOCK", call: "syscall(41, 40, 1, 0)" },
  { name: "a socket of AF_ALG", call: "syscall(41, 38, 5, 0)" },
  { name: "a socket of AF_NETLINK", call: "syscall(41, 16, 3, 0)" },
  { name: "a socket of AF_PACKET", call: "syscall(41, 17, 3, 0)" },
];

const FROM_C = `
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
buffer = ctypes.create_string_buffer(256)
def syscall(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *[a if not isinstance(a, int) else ctypes.c_long(a) for a in arguments]) >= 0: return "done"
    return errno.errorcode[ctypes.get_errno()]
`;

describe.skipIf(skipped !== "" || process.arch !== "x64")(`system calls ${skipped}`, () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openTestBackend();
  });
  afterAll(() => backend[Symbol.asyncDispose]());
  const inC = (call: string): Promise<RunResult> => runIn(backend, python(`${FROM_C}print('"' + ${call} + '"')`));

  test("that are refused", async () => {
    const calls = REFUSED.map(({ name, call }) => `${JSON.stringify(name)}: ${call}`).join(", ");
    const { resultJson, stderr } = await runIn(backend, python(`${FROM_C}import json\nprint(json.dumps({${calls}}))`));
    const refused = Object.fromEntries(REFUSED.map(({ name }) => [name, name === "clone3" ? "ENOSYS" : "EPERM"]));
    expect(JSON.parse(resultJson || stderr)).toEqual(refused);
  });

  test("that are allowed: the same way of asking succeeds", async () => {
    expect((await inC("syscall(39)")).resultJson).toBe('"done"'); // getpid
    expect((await inC("syscall(41, 1, 1, 0)")).resultJson).toBe('"done"'); // a socket of AF_UNIX
  });

  test("by x32 numbers, which filters forget, do not get through", async () => {
    const { exitCode, stdout } = await inC("syscall(0x40000000 + 39)");
    expect(exitCode === 0 ? stdout.trim() : "killed").toMatch(/^("ENOSYS"|"EPERM"|killed)$/);
  });

  test("gain nothing by a program's setuid bit: there is none", async () => {
    const { stdout } = await runIn(backend, shell("find / -xdev -type f -perm /6000 2>/dev/null; true"));
    expect(stdout).toBe("");
    expect(() => backend.check(specOf(shell("true")))).not.toThrow();
  });
});
