import { test } from "vitest";
import { findUser } from "./unprivileged-user.ts";

test("postgres comes before nobody, and neither is made up", ({ expect }) => {
  const nobody = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
  expect(findUser(`${nobody}postgres:x:101:104::/:/bin/sh\n`)).toEqual({
    name: "postgres",
    uid: 101,
    gid: 104,
  });
  expect(findUser(nobody)?.uid).toBe(65_534);
  expect(findUser("root:x:0:0::/root:/bin/sh\n")).toBeUndefined();
});

test("a candidate that is root under another name is none", ({ expect }) => {
  expect(findUser("postgres:x:0:0::/:/bin/sh\nnobody:x:99:99::/:/bin/sh")?.name).toBe("nobody");
});

test("the negative number of macOS is the same user", ({ expect }) => {
  expect(findUser("nobody:*:-2:-2::/:/usr/bin/false")?.uid).toBe(4_294_967_294);
});
