/** A git server that says it is github.com, with a project to mend. Prints the flags that a control plane needs for it. */

import { startGit } from "../../sdks/typescript/test/git-server.mjs";

const PROJECT = `
printf 'def add(a, b):\\n    return a - b\\n' > calc.py
printf 'import unittest\\n\\nfrom calc import add\\n\\n\\nclass Add(unittest.TestCase):\\n    def test_adds(self):\\n        self.assertEqual(add(2, 3), 5)\\n' > test_calc.py
`;

const { flags, stop } = await startGit("127.87.0.1", "you/project", PROJECT);
console.log(JSON.stringify(flags));
process.on("SIGTERM", () => {
  stop();
  process.exit(0);
});
