import type { Mask } from "../shared/mask.ts";
import type { RunResult } from "./model.ts";

export function maskResult(result: RunResult, mask: Mask): RunResult {
  const { resultJson, stdout, stderr, error } = result;
  return { ...result, resultJson: mask(resultJson), stdout: mask(stdout), stderr: mask(stderr), error: mask(error) };
}
