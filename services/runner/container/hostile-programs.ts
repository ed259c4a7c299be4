import { expect } from "vitest";
import { EGRESS } from "./hostile-egress.ts";
import { allRefused, type Hostile, overWith, refused, says, tries } from "./hostile-kit.ts";
import { python, shell } from "./test-engine.ts";

const brief = { limits: { wallMs: 1_500 } };

const RESOURCES: readonly Hostile[] = [
  {
    name: "a fork bomb",
    program: tries(
      "n = 0\ntry:\n  while n < 2000:\n    if os.fork() == 0: __import__('time').sleep(60)\n    n += 1\nexcept OSError: tell(n)",
      { limits: { pids: 10 } },
    ),
    must: says(9),
    underGvisor: overWith("exited", "lost", "oom"),
  },
  {
    name: "a fork bomb that doubles",
    program: shell("b() { b | b & }; b; sleep 60", brief),
    must: overWith("timeout", "exited", "cpu", "lost"),
  },
  { name: "a memory bomb", program: python("x = bytearray(300 << 20); print(len(x))"), must: overWith("oom") },
  {
    name: "many small allocations",
    program: python("x = []\nwhile True: x.append('x' * 9999)"),
    must: overWith("oom"),
  },
  {
    name: "memory kept in files",
    program: shell("for i in 1 2 3; do head -c 60M /dev/zero > /tmp/$i || exit 9; done", {
      limits: { memoryBytes: 32 << 20 },
    }),
    must: overWith("oom"),
    underGvisor: overWith("oom", "exited"),
  },
  {
    name: "a disk that is filled",
    program: shell(
      "head -c 90M /dev/zero > /work/x; wc -c < /work/x | awk '{ print ($1 <= 64 * 1048576) ? \"bounded\" : $1 }'",
      { limits: { memoryBytes: 256 << 20 } },
    ),
    must: { stdout: "bounded\n" },
  },
  {
    name: "a hundred thousand files",
    program: shell("i=0; while :; do : > /tmp/$((i++)) || exit 5; done", brief),
    must: overWith("exited", "oom", "timeout", "cpu"),
  },
  { name: "a flood on stdout", program: shell("yes", brief), must: { ...overWith("timeout", "cpu"), truncated: true } },
  {
    name: "a flood on stderr",
    program: shell("yes >&2", brief),
    must: { ...overWith("timeout", "cpu"), truncated: true },
  },
  {
    name: "a storm of zombies",
    program: tries(
      "for i in range(100):\n  if os.fork() == 0:\n    if os.fork() == 0: os._exit(0)\n    os._exit(0)\n  os.wait()\ntell('all')",
      { limits: { pids: 16 } },
    ),
    must: says("all"),
    underGvisor: overWith("exited", "lost", "cpu", "timeout"), // slow forks, on a busy machine
  },
  {
    name: "a child that holds the pipe open",
    program: shell("setsid sleep 60 & disown; echo '\"over\"'"),
    must: says("over"),
  },
  {
    name: "all file descriptors",
    program: tries("n = 0\ntry:\n  while True: os.dup(0); n += 1\nexcept OSError: tell(n < 1024)"),
    must: says(true),
  },
  {
    name: "CPU time, in many",
    program: shell("for i in 1 2 3 4; do (while :; do :; done) & done; wait", { limits: { cpuMs: 400 } }),
    must: overWith("cpu"),
  },
  {
    name: "a sleep for ever, deaf to signals",
    program: shell("trap '' TERM INT HUP; sleep 60 & sleep 60; wait", { limits: { wallMs: 400 } }),
    must: overWith("timeout"),
  },
  {
    name: "its bounds, raised",
    program: tries(
      "import resource as r\ndef up(name, n):\n  try: r.setrlimit(name, (n, n)); return 'done'\n  except ValueError: return 'EPERM'\ntell(up(r.RLIMIT_NOFILE, 4096), up(r.RLIMIT_CORE, 1 << 20))",
    ),
    must: allRefused,
  },
];

const KERNEL: readonly Hostile[] = [
  { name: "mount", program: tries("tell(syscall(165, b'none', b'/tmp', b'tmpfs', 0, 0))"), must: refused },
  {
    name: "the new mount calls",
    program: tries("tell(syscall(430, b'tmpfs', 0), syscall(428, -100, b'/', 0x1))"),
    must: allRefused,
  },
  {
    name: "pivot_root and chroot",
    program: tries("tell(syscall(155, b'/work', b'/work'), syscall(161, b'/work'))"),
    must: allRefused,
  },
  { name: "ptrace of the harness", program: tries("tell(syscall(101, 16, 1, 0, 0))"), must: refused },
  {
    name: "another process's memory",
    program: tries("tell(syscall(310, 1, 0, 0, 0, 0, 1), attempt(lambda: open('/proc/1/mem', 'rb')))"),
    must: allRefused,
    underGvisor: { end: "exited" },
  },
  {
    name: "keyctl",
    program: tries("tell(syscall(250, 0, -3, 0), syscall(248, b'user', b'x', b'y', 1, -3))"),
    must: allRefused,
  },
  {
    name: "raw sockets",
    program: tries(
      "tell(attempt(lambda: socket.socket(2, 3, 1)), attempt(lambda: socket.socket(17, 3)), attempt(lambda: socket.socket(10, 3, 58)))",
    ),
    must: allRefused,
  },
  {
    name: "odd socket families",
    program: tries("tell(*[attempt(lambda f=f: socket.socket(f, 1)) for f in (40, 38, 16, 21, 44)])"),
    must: allRefused,
    underGvisor: { end: "exited" },
  },
  {
    name: "device nodes",
    program: tries(
      "def node(path, kind, device):\n  os.mknod(path, kind, device); open(path, 'rb').read(1)\ntell(attempt(lambda: node('/tmp/a', 0o60600, os.makedev(8, 0))), attempt(lambda: node('/work/b', 0o20600, os.makedev(1, 1))))",
    ),
    must: allRefused,
  },
  {
    name: "setuid",
    program: tries(
      "tell(attempt(lambda: os.setuid(0)), attempt(lambda: os.setgid(0)), attempt(lambda: os.setgroups([0])))",
    ),
    must: allRefused,
  },
  { name: "a setuid file", program: shell("find / -xdev -type f -perm /6000 2>/dev/null | wc -l"), must: says(0) },
  {
    name: "release_agent of a control group",
    program: shell(
      "find / -name release_agent -writable 2>/dev/null | wc -l; mount -t cgroup -o rdma cgroup /tmp 2>&1 | tail -1; ls -A /tmp",
    ),
    must: { stdout: expect.stringMatching(/^0\n(.*(command not found|denied|permitted|superuser).*\n)?$/) },
  },
  {
    name: "core_pattern",
    program: tries("tell(attempt(lambda: open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')))"),
    must: refused,
  },
  {
    name: "sysrq and the kernel's log",
    program: tries(
      "tell(attempt(lambda: open('/proc/sysrq-trigger', 'w')), attempt(lambda: open('/dev/kmsg')), attempt(lambda: open('/dev/mem', 'rb')))",
    ),
    must: allRefused,
  },
  {
    name: "what is writable in /proc and /sys",
    program: shell("find /sys /proc/sys /proc/irq /proc/bus /proc/fs -type f -writable 2>/dev/null | wc -l"),
    must: says(0),
    underGvisor: { end: "exited" },
  },
  {
    name: "masked paths",
    program: shell("cat /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /sys/firmware/* 2>/dev/null | wc -c"),
    must: says(0),
  },
  {
    name: "a new user namespace",
    program: tries("tell(syscall(272, 0x10000000), syscall(56, 0x10000000 | 17, 0, 0, 0, 0))"),
    must: allRefused,
    underGvisor: { end: "exited" },
  },
  {
    name: "another's namespaces",
    program: tries(
      "tell(attempt(lambda: syscall(308, os.open('/proc/1/ns/mnt', 0), 0) != 'done' and (_ for _ in ()).throw(PermissionError(1, '')))) ",
    ),
    must: refused,
  },
  {
    name: "bpf, userfaultfd, io_uring, perf",
    program: tries(
      "b = ctypes.create_string_buffer(256)\ntell(syscall(321, 0, b, 120), syscall(323, 1), syscall(425, 8, b), syscall(298, b, 0, -1, -1, 0))",
    ),
    must: allRefused,
    underGvisor: { end: "exited" },
  },
  {
    name: "a file by its handle",
    program: tries("tell(syscall(304, 3, ctypes.create_string_buffer(256), 0))"),
    must: refused,
  },
  {
    name: "kernel modules and a new kernel",
    program: tries("tell(syscall(175, 0, 0, b''), syscall(313, 0, b'', 0), syscall(246, 0, 0, 0, 0))"),
    must: allRefused,
  },
  {
    name: "the clock and the host's name",
    program: tries(
      "tell(syscall(227, 0, ctypes.create_string_buffer(16)), syscall(170, b'x', 1), syscall(169, 0xfee1dead, 672274793, 0))",
    ),
    must: allRefused,
  },
  {
    name: "the engine's socket, or any",
    program: shell(
      "find / -xdev -type s 2>/dev/null | wc -l; wc -l < /proc/net/unix | awk '{ print ($1 < 8) ? \"own\" : $1 }'",
    ),
    must: { stdout: "0\nown\n" },
  },
  {
    name: "the image, written to",
    program: shell("echo x >> /harness; echo x > /etc/x; rm -f /bin/bash; test -x /bin/bash && echo whole"),
    must: { stdout: "whole\n" },
  },
  {
    name: "lower odds of being killed for memory",
    program: tries(
      "attempt(lambda: os.write(os.open('/proc/self/oom_score_adj', 1), b'-1000'))\ntell(int(open('/proc/self/oom_score_adj').read()) >= 900)",
    ),
    must: says(true),
    underGvisor: { end: "exited" },
  },
];

const EXIT_FRAME = "bytes([0,0,0,26,19,0,0,0,1]) + bytes(21)";

const HARNESS: readonly Hostile[] = [
  {
    name: "a forged exit and usage through the harness's streams",
    program: tries(
      `tell(*[attempt(lambda f=f: open(f, 'wb', 0).write(${EXIT_FRAME})) for f in ('/proc/1/fd/1', '/proc/1/fd/0', '/proc/1/fd/2')])\nsys.exit(3)`,
    ),
    must: { end: "exited", exitCode: 3, stdout: expect.stringMatching(/^\["EACCES"/) },
    underGvisor: overWith("exited", "lost"),
  },
  {
    name: "a giant length through the harness's streams",
    program: tries("tell(attempt(lambda: open('/proc/1/fd/1', 'wb', 0).write(b'\\xff' * 64)))"),
    must: refused,
    underGvisor: overWith("exited", "lost"),
  },
  {
    name: "frames on its own stdout",
    program: tries(`os.write(1, ${EXIT_FRAME}); os.write(1, b'\\xff\\xff\\xff\\xff'); sys.exit(4)`),
    must: { end: "exited", exitCode: 4, stdout: expect.stringMatching(/^\0\0\0\x1a\x13/) },
  },
  {
    name: "frames interleaved from many processes",
    program: shell(
      "for i in 1 2 3 4 5 6; do (for ((j = 0; j < 200; j++)); do printf '\\0\\0\\0\\005\\023\\0\\0\\0\\001'; done) & done; wait; exit 5",
    ),
    must: { end: "exited", exitCode: 5 },
  },
  {
    name: "descriptors left open",
    program: tries(
      "tell(sorted(int(x) for x in os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')) <= 4)",
    ),
    must: says([[0, 1, 2], true]),
  },
  {
    name: "every signal to the harness",
    program: shell(
      "for s in 1 2 3 6 9 11 13 14 15 17 19 20 24; do kill -$s 1 2>/dev/null; done; sleep 0.1; echo '\"alive\"'",
    ),
    must: says("alive"),
    underGvisor: overWith("exited", "lost"),
  },
  { name: "every process killed", program: shell("kill -9 -1; kill -9 $$"), must: { end: "exited", exitCode: 137 } },
  {
    name: "the harness's environment and files",
    program: tries("tell(attempt(lambda: open('/proc/1/environ')), attempt(lambda: os.readlink('/proc/1/cwd')))"),
    must: allRefused,
    underGvisor: { end: "exited" },
  },
];

export const HOSTILE: readonly Hostile[] = [...RESOURCES, ...KERNEL, ...HARNESS, ...EGRESS];
