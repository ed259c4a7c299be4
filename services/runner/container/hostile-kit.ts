import { expect } from "vitest";
import { type Program, python } from "./test-engine.ts";

/**
 * What hostile code tries in a container, and what must come of it. `must` is what its result matches; under gVisor,
 * whose kernel is its own, some of it ends differently and as harmlessly: then `underGvisor` says how.
 */
export type Hostile = {
  readonly name: string;
  readonly program: Program;
  readonly must: object;
  readonly underGvisor?: object;
};

const TRY = `
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def syscall(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *[a if not isinstance(a, int) else ctypes.c_long(a) for a in arguments]) >= 0: return "done"
    return errno.errorcode[ctypes.get_errno()]
def attempt(action):
    try: action(); return "done"
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def tell(*values): print(json.dumps(values[0] if len(values) == 1 else values))
`;
export const tries = (code: string, more: Partial<Program> = {}): Program => python(TRY + code, more);
export const refused = { end: "exited", resultJson: expect.stringMatching(/^"E[A-Z0-9]+"$/) };
export const allRefused = { end: "exited", resultJson: expect.stringMatching(/^\["E[A-Z0-9]+"(,"E[A-Z0-9]+")*\]$/) };
export const says = (value: unknown): object => ({ end: "exited", exitCode: 0, resultJson: JSON.stringify(value) });
export const overWith = (...ends: string[]): object => ({
  end: expect.stringMatching(new RegExp(`^(${ends.join("|")})$`)),
});
