/** `npx drizzle-kit generate` writes the next migration of the control plane's own database. */
import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: [
    "./control-plane/store/schema.ts",
    "./control-plane/store/schema-adoption.ts",
    "./control-plane/store/schema-failover.ts",
    "./control-plane/store/schema-moves.ts",
    "./control-plane/store/schema-recovery.ts",
    "./control-plane/store/schema-safety.ts",
    "./control-plane/store/schema-salvage.ts",
    "./control-plane/store/schema-slo.ts",
    "./control-plane/store/schema-standby.ts",
  ],
  out: "./control-plane/store/migrations",
});
