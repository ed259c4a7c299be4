import { expect, test } from "vitest";
import { isIban, isLuhn } from "./checksums.ts";

// The examples of the IBAN registry and of card makers' test numbers.
test.each([
  ["DE89370400440532013000", true],
  ["GB29NWBK60161331926819", true],
  ["FR1420041010050500013M02606", true],
  ["gb29nwbk60161331926819", true],
  ["DE89370400440532013001", false],
  ["DE8937040044", false],
  ["8937DE0400440532013000", false],
])("IBAN %s: %s", (text, want) => expect(isIban(text)).toBe(want));

test.each([
  ["4111111111111111", true],
  ["378282246310005", true],
  ["6011111111111117", true],
  ["4111111111111112", false],
  ["1411111111111111", false],
])("Luhn %s: %s", (text, want) => expect(isLuhn(text)).toBe(want));
