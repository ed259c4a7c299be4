import { describe, expect, test } from "vitest";
import { containerClass, type EngineFacts, type IsolationClass } from "./facts.ts";

const engine: EngineFacts = {
  ...{ version: "28.0.0", memoryLimit: true, swapLimit: true, pidsLimit: true, cpuQuota: true, takesCgroups: true },
  security: ["seccomp", "apparmor", "userns"],
  runtimes: new Map([["runc", []]]),
  runcVersion: "1.3.3",
};

function given(isolationClass: IsolationClass, facts: Partial<EngineFacts> = {}, images = ["python"], metered = true) {
  return containerClass(isolationClass, { facts: { ...engine, ...facts }, images, metered });
}

describe("runc", () => {
  test("with all that is wanted misses nothing", () => {
    expect(given("runc")).toMatchObject({ available: true, note: "", missing: [], runtime: undefined });
  });

  const missing: readonly { readonly name: string; readonly facts: Partial<EngineFacts> }[] = [
    { name: "swap-limit", facts: { swapLimit: false } },
    { name: "cpu-rate", facts: { cpuQuota: false } },
    { name: "user-namespace", facts: { security: ["seccomp", "selinux"] } },
    { name: "mandatory-access-control", facts: { security: ["seccomp", "rootless"] } },
    { name: "patched-runc", facts: { runcVersion: "1.1.5+ds1" } },
  ];
  test.each(missing)("says that $name is missing", ({ name, facts }) => {
    const found = given("runc", facts);
    expect(found).toMatchObject({ available: true, missing: [name] });
    expect(found.enforced).not.toContain(name);
  });

  const refused: readonly { readonly name: string; readonly facts: Partial<EngineFacts> }[] = [
    { name: "seccomp", facts: { security: ["apparmor", "userns"] } },
    { name: "memory-limit", facts: { memoryLimit: false } },
    { name: "pids-limit", facts: { pidsLimit: false } },
  ];
  test.each(refused)("is not available without $name", ({ name, facts }) => {
    expect(given("runc", facts)).toMatchObject({ available: false, note: expect.stringContaining(name) });
  });

  test("is not available without images, or without an engine", () => {
    expect(given("runc", {}, [])).toMatchObject({ available: false, note: expect.stringContaining("make images") });
    const nothing = containerClass("runc", { facts: undefined, images: ["python"], metered: true });
    expect(nothing).toMatchObject({ available: false, note: expect.stringContaining("ensure-docker") });
  });

  const versions: readonly (readonly [string, boolean])[] = [
    ["1.1.12", false],
    ["1.2.7", false],
    ["1.2.8", true],
    ["1.3.0", false],
    ["v1.3.3-0-gd842d77", true],
    ["1.4.0", true],
    ["2.0.1", true],
    ["", false],
    ["0123abc", false],
  ];
  test.each(versions)("version %j has its breakouts mended: %s", (runcVersion, mended) => {
    const found = given("runc", { runcVersion });
    expect(found.enforced.includes("patched-runc")).toBe(mended);
    expect(found.note === "").toBe(mended);
  });
});

describe("gvisor and kata", () => {
  test("are not available where the engine has no such runtime", () => {
    expect(given("gvisor")).toMatchObject({ available: false, note: expect.stringContaining("runsc") });
    expect(given("kata")).toMatchObject({ available: false, note: expect.stringContaining("/dev/kvm") });
  });

  test("run in their own runtime", () => {
    const runtimes = new Map([
      ["runc", []],
      ["runsc", []],
      ["kata", []],
    ]);
    expect(given("gvisor", { runtimes })).toMatchObject({ available: true, runtime: "runsc", missing: [] });
    expect(given("kata", { runtimes })).toMatchObject({ available: true, runtime: "kata", missing: [] });
  });

  describe("gVisor that ignores control groups", () => {
    const facts: Partial<EngineFacts> = {
      runtimes: new Map([
        ["runc", []],
        ["runsc", ["--ignore-cgroups"]],
      ]),
    };
    const bounds = ["memory-limit", "pids-limit", "cpu-rate", "cpu-limit"];

    test("limits neither memory nor processes by itself", () => {
      const { available, missing, adopt } = given("gvisor", facts, ["python"], false);
      expect({ available, adopt }).toEqual({ available: true, adopt: false });
      expect(missing).toEqual(expect.arrayContaining(bounds));
    });

    test("is put into our groups where we have some, and then is limited", () => {
      const { enforced, missing, adopt } = given("gvisor", facts);
      expect(adopt).toBe(true);
      expect(enforced).toEqual(expect.arrayContaining(bounds));
      expect(missing).toEqual([]);
    });
  });

  const sockets: [isolationClass: IsolationClass, runtimeArgs: string[], egress: boolean][] = [
    ["runc", [], true],
    ["gvisor", [], false],
    ["gvisor", ["--host-uds=none"], false],
    ["gvisor", ["--fsgofer-host-uds"], true],
    ["gvisor", ["--host-uds=open"], true],
    ["kata", [], false],
  ];
  test.each(sockets)("%s %j can have a way out: %s", (isolationClass, runtimeArgs, egress) => {
    const runtimes = new Map([
      ["runc", []],
      ["runsc", runtimeArgs],
      ["kata", []],
    ]);
    expect(given(isolationClass, { runtimes }).egress).toBe(egress);
  });
});
