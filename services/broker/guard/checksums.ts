/** The check digits that account and card numbers carry. Pure. */

/** ISO 13616: the IBAN as one word, its first four characters moved to the end, letters as numbers, modulo 97. */
export function isIban(text: string): boolean {
  if (!/^[A-Za-z]{2}\d{2}[0-9A-Za-z]{11,30}$/.test(text)) return false;
  let rest = 0;
  for (const c of `${text.slice(4)}${text.slice(0, 4)}`.toUpperCase()) {
    const value = c >= "A" ? c.charCodeAt(0) - 55 : Number(c);
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97;
  }
  return rest === 1;
}

/** Luhn 1960, ISO/IEC 7812: from the right every second digit doubled, the sum a multiple of ten. */
export function isLuhn(digits: string): boolean {
  let sum = 0;
  for (let i = 0; i < digits.length; i++) {
    const digit = Number(digits[digits.length - 1 - i]);
    const doubled = i % 2 === 1 ? digit * 2 : digit;
    sum += doubled > 9 ? doubled - 9 : doubled;
  }
  return sum % 10 === 0;
}
