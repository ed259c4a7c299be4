import { execFile } from "node:child_process";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { connectTo } from "../support/clients.ts";
import { type Running, startEmbedded, startOverNats } from "../support/interlock.ts";
import { tamperJetstream } from "../support/tamper.ts";

/** `interlock audit verify` from outside: whole it says so; after one changed byte it names that record. */

const run = promisify(execFile);

async function verify(configFile: string): Promise<{ kind: string; stream?: string; seq?: number; records?: number }> {
  try {
    const { stdout } = await run("bin/interlock", ["--json", "audit", "verify", "--config", configFile]);
    return JSON.parse(stdout);
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    if (code !== 1) throw new Error(`exit code ${code}: ${stderr}`);
    return JSON.parse(stdout);
  }
}

async function callFiveTimes(running: Running): Promise<void> {
  await using clients = connectTo(running);
  for (let i = 0; i < 5; i++) {
    const argumentsJson = `{"program":"return ${i}","input":0}`;
    await clients.agent.execute({ session: "audited", tool: "math.compute", argumentsJson });
  }
}

describe("audit verify on SQLite", () => {
  it("passes, and names the record of which one byte was changed", async () => {
    await using running = await startEmbedded({ config: { runner: { containers: "off" } } });
    await callFiveTimes(running);
    const whole = await verify(running.configFile);
    expect(whole.kind).toBe("ok");
    expect(whole.records).toBeGreaterThan(10);

    const db = new DatabaseSync(join(running.state, "journal.db"));
    const row = db
      .prepare(
        "SELECT stream, seq, body FROM records WHERE stream = 'session.demo.audited' ORDER BY seq LIMIT 1 OFFSET 3",
      )
      .get() as { stream: string; seq: number; body: Uint8Array };
    const body = Uint8Array.from(row.body);
    const at = Math.floor(body.length / 2);
    body[at] = (body[at] ?? 0) ^ 1;
    db.prepare("UPDATE records SET body = ? WHERE stream = ? AND seq = ?").run(body, row.stream, row.seq);
    db.close();
    expect(await verify(running.configFile)).toMatchObject({ kind: "broken", stream: row.stream, seq: row.seq });
  });
});

describe("audit verify on JetStream", () => {
  it("passes, and names the record of which one byte was changed", async () => {
    await using running = await startOverNats({ config: { runner: { containers: "off" } } });
    await callFiveTimes(running);
    expect(await verify(running.configFile)).toMatchObject({ kind: "ok" });
    const stream = "session.demo.audited";
    // The last byte of the stream's first message is one of its first record's body.
    await tamperJetstream(running.natsUrl ?? "", `interlock.journal.${stream}`, (data) => {
      data[data.length - 1] = (data[data.length - 1] ?? 0) ^ 1;
    });
    expect(await verify(running.configFile)).toMatchObject({ kind: "broken", stream, seq: 1 });
  });
});
