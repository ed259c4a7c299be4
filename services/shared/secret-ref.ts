/** `secret://file/NAME`, `secret://env/NAME` or `secret://vault/MOUNT/PATH#FIELD`: where a secret is, never what. */
export const SECRET_REF =
  /^secret:\/\/(?:(?<provider>file|env)\/(?<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})|vault\/(?<mount>[a-z0-9-]{1,64})\/(?<path>[A-Za-z0-9_-]{1,64}(?:\/[A-Za-z0-9_-]{1,64}){0,8})#(?<field>[A-Za-z0-9_-]{1,64}))$/;
