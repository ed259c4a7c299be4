import { expect, test } from "vitest";
import { MASKED, maskOf } from "../shared/mask.ts";
import { resultOf } from "./fixture.ts";
import { maskResult } from "./mask.ts";

test("every text field of a result is masked, and nothing else changes", () => {
  const shown = resultOf({
    resultJson: `"${"hunter22"}"`,
    stdout: "a hunter22",
    stderr: "b hunter22",
    error: "c hunter22",
  });
  expect(maskResult(shown, maskOf(["hunter22"]))).toEqual({
    ...shown,
    resultJson: `"${MASKED}"`,
    stdout: `a ${MASKED}`,
    stderr: `b ${MASKED}`,
    error: `c ${MASKED}`,
  });
});
