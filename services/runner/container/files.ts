import { z } from "zod";
import { canonicalJson, type Json, parseJson } from "../../shared/json.ts";
import { RpcError } from "../../shared/rpc/errors.ts";
import type { RunSpec } from "../backend.ts";
import { FileFault, type Sandbox } from "./sandbox.ts";

/** What a session's sandbox is asked for instead of a program, and its arguments. */
const path = z
  .string()
  .max(1023)
  .regex(/^[^\0]*$/, "leave out the NUL")
  .refine((text) => text.split("/").every((part) => part !== "" && part !== "." && part !== ".."), {
    message: "use a path below the workspace, such as data/input.csv: no leading `/`, no empty, `.` or `..` part",
  })
  .refine((text) => text.split("/").every((part) => Buffer.byteLength(part) <= 255), "a part is longer than 255 bytes");

const OPERATIONS = {
  upload: z.strictObject({ path, content: z.base64().describe("base64") }),
  download: z.strictObject({ path }),
  list: z.strictObject({ path: z.union([path, z.literal("")]).default("") }),
} as const;

export type FileOperation =
  | ({ readonly kind: "upload" } & z.output<typeof OPERATIONS.upload>)
  | ({ readonly kind: "download" } & z.output<typeof OPERATIONS.download>)
  | ({ readonly kind: "list" } & z.output<typeof OPERATIONS.list>);

/** @throws RpcError INVALID_ARGUMENT naming the argument. */
export function parseFileOperation(kind: FileOperation["kind"], argumentsJson: string): FileOperation {
  const parsed = OPERATIONS[kind].safeParse(parseJson(argumentsJson));
  if (parsed.success) return { kind, ...parsed.data } as FileOperation;
  const [issue] = parsed.error.issues;
  const field = `arguments.${issue?.path.join(".") ?? ""}`;
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "FILE_ARGUMENT_INVALID",
    field,
    message: `Change ${field}: ${issue?.message ?? "it cannot be read"}.`,
  });
}

export type FileResult = { readonly exitCode: number; readonly resultJson: string; readonly error: string };

/** Files as large as the call's output may be. */
export async function performFileOperation(
  sandbox: Sandbox,
  operation: FileOperation,
  { limits }: Pick<RunSpec, "limits">,
): Promise<FileResult> {
  try {
    return { exitCode: 0, resultJson: canonicalJson(await perform(sandbox, operation, limits)), error: "" };
  } catch (error) {
    if (!(error instanceof FileFault)) throw error;
    const what = ERRNO[error.errno] ?? `could not be used (errno ${error.errno})`;
    return {
      exitCode: 1,
      resultJson: "",
      error: `${operation.path === "" ? "The workspace" : operation.path} ${what}.`,
    };
  }
}

async function perform(sandbox: Sandbox, operation: FileOperation, limits: RunSpec["limits"]): Promise<Json> {
  switch (operation.kind) {
    case "upload": {
      const content = Buffer.from(operation.content, "base64");
      await sandbox.put(operation.path, content);
      return { path: operation.path, size: content.length };
    }
    case "download": {
      const content = await sandbox.get(operation.path, limits.outputBytes);
      return { path: operation.path, size: content.length, content: content.toString("base64") };
    }
    case "list":
      return { path: operation.path, entries: (await sandbox.list(operation.path)).map((entry) => ({ ...entry })) };
  }
}

const ERRNO: Readonly<Record<number, string>> = {
  2: "does not exist",
  13: "may not be read or written",
  17: "is being uploaded already",
  20: "is no directory",
  21: "is a directory",
  22: "is no regular file below the workspace",
  24: "is one of too many uploads at once",
  27: "is larger than the call's output_bytes",
  28: "does not fit: the workspace is full",
  40: "is a symbolic link, or behind one",
  75: "has more entries than can be listed",
};
