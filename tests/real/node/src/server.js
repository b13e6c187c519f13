// Answers one line over HTTP.
const http = require("http");
const ms = require("ms");
const server = http.createServer((_, response) => response.end(`node answers, @BUILT@, ${ms("2 days")} ms\n`));
server.listen(Number(process.env.PORT || 8000), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
