/**
 * What a worker process may still ask of the kernel once it has started: the calls Node and V8 make to run programs,
 * read with strace, and nothing that opens, connects, mounts, traces or starts anything. A classic BPF program as
 * seccomp(2) takes it, eight bytes an instruction: code, jump if true, jump if false, operand.
 */

const LOAD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_AT_LEAST = 0x35;
const JUMP_IF_ANY_BIT = 0x45;
const RETURN = 0x06;

const ALLOW = 0x7fff0000;
const KILL = 0x80000000;
const errno = (number: number): number => 0x00050000 | number;
const EPERM = errno(1);
/** So that the C library falls back to clone(2), whose flags can be seen. */
const ENOSYS = errno(38);

/** Offsets into struct seccomp_data. */
const NUMBER = 0;
const ARCHITECTURE = 4;
const FIRST_ARGUMENT = 16;

const X86_64 = 0xc000003e;
/** Numbers from here on are of the x32 ABI, which nothing here uses. */
const X32 = 0x40000000;
const CLONE = 56;
const CLONE3 = 435;
const CLONE_THREAD = 0x00010000;
/** Every flag of clone(2) that makes a namespace. */
const CLONE_NEW = 0x7e020080;

/** x86-64 numbers, from the kernel's syscall_64.tbl. */
const CALLS: Readonly<Record<string, number>> = {
  ...{ read: 0, write: 1, close: 3, fstat: 5, poll: 7, lseek: 8, mmap: 9, mprotect: 10, munmap: 11, brk: 12 },
  ...{ rt_sigaction: 13, rt_sigprocmask: 14, rt_sigreturn: 15, ioctl: 16, pread64: 17, readv: 19, writev: 20 },
  // What its pipes are, which are sockets, it asks before it reads them.
  ...{ shutdown: 48, getsockname: 51, getsockopt: 55, recvmsg: 47 },
  ...{ access: 21, sched_yield: 24, mremap: 25, madvise: 28, nanosleep: 35, getpid: 39, exit: 60, uname: 63 },
  ...{ fcntl: 72, getcwd: 79, readlink: 89, getrusage: 98, sysinfo: 99, getuid: 102, getgid: 104, geteuid: 107 },
  ...{ getegid: 108, capget: 125, sigaltstack: 131, prctl: 157, arch_prctl: 158, gettid: 186, futex: 202 },
  ...{ sched_getaffinity: 204, getdents64: 217, set_tid_address: 218, restart_syscall: 219, clock_gettime: 228 },
  ...{ clock_getres: 229, clock_nanosleep: 230, exit_group: 231, epoll_wait: 232, epoll_ctl: 233, tgkill: 234 },
  ...{ openat: 257, newfstatat: 262, set_robust_list: 273, epoll_pwait: 281, eventfd2: 290, epoll_create1: 291 },
  ...{ pipe2: 293, prlimit64: 302, getrandom: 318, membarrier: 324, pkey_mprotect: 329, pkey_alloc: 330 },
  ...{ pkey_free: 331, statx: 332, rseq: 334, execve: 59 },
};

/** The filter for this machine's processor, or undefined where none is written for it. */
export function syscallFilter(architecture: string = process.arch): Uint8Array | undefined {
  if (architecture !== "x64") return undefined;
  const allowed = Object.values(CALLS);
  // Jumps count the instructions they leave out.
  return program([
    [LOAD, 0, 0, ARCHITECTURE],
    [JUMP_IF_EQUAL, 1, 0, X86_64],
    [RETURN, 0, 0, KILL],
    [LOAD, 0, 0, NUMBER],
    [JUMP_IF_AT_LEAST, 0, 1, X32],
    [RETURN, 0, 0, KILL],
    [JUMP_IF_EQUAL, 0, 1, CLONE3],
    [RETURN, 0, 0, ENOSYS],
    [JUMP_IF_EQUAL, 0, 5, CLONE],
    [LOAD, 0, 0, FIRST_ARGUMENT],
    [JUMP_IF_ANY_BIT, 2, 0, CLONE_NEW],
    [JUMP_IF_ANY_BIT, 0, 1, CLONE_THREAD],
    [RETURN, 0, 0, ALLOW],
    [RETURN, 0, 0, EPERM],
    ...allowed.flatMap((number): Instruction[] => [
      [JUMP_IF_EQUAL, 0, 1, number],
      [RETURN, 0, 0, ALLOW],
    ]),
    [RETURN, 0, 0, EPERM],
  ]);
}

type Instruction = readonly [code: number, ifTrue: number, ifFalse: number, operand: number];

function program(instructions: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(instructions.length * 8);
  for (const [i, [code, ifTrue, ifFalse, operand]] of instructions.entries()) {
    bytes.writeUInt16LE(code, i * 8);
    bytes.writeUInt8(ifTrue, i * 8 + 2);
    bytes.writeUInt8(ifFalse, i * 8 + 3);
    bytes.writeUInt32LE(operand, i * 8 + 4);
  }
  return bytes;
}
