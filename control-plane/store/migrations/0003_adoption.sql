CREATE TABLE "cellfleet_control"."claim" (
	"namespace" text NOT NULL,
	"hash" text NOT NULL,
	"keyspace" text NOT NULL,
	"tenant" text NOT NULL,
	"state" text NOT NULL,
	"exclusive" boolean NOT NULL,
	"reservation" text,
	"expires_at" timestamp with time zone,
	"revision" bigint,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "claim_namespace_hash_keyspace_tenant_pk" PRIMARY KEY("namespace","hash","keyspace","tenant")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."claim_namespace" (
	"name" text PRIMARY KEY NOT NULL,
	"cardinality" text NOT NULL,
	"fold" boolean NOT NULL,
	"routed" boolean NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."purge" (
	"op" text NOT NULL,
	"cell" text NOT NULL,
	"key" text NOT NULL,
	"rows" jsonb,
	"confirmed_at" timestamp with time zone,
	CONSTRAINT "purge_op_cell_pk" PRIMARY KEY("op","cell")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."query" (
	"id" text PRIMARY KEY NOT NULL,
	"actor" text NOT NULL,
	"sql" text NOT NULL,
	"cells" text[] NOT NULL,
	"rows_max" integer NOT NULL,
	"timeout_ms" integer NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"deadline_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."query_answer" (
	"query" text NOT NULL,
	"cell" text NOT NULL,
	"answer" jsonb NOT NULL,
	"at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "query_answer_query_cell_pk" PRIMARY KEY("query","cell")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."tombstone" (
	"keyspace" text NOT NULL,
	"tenant" text NOT NULL,
	"op" text NOT NULL,
	"receipt" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"deleted_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "tombstone_keyspace_tenant_pk" PRIMARY KEY("keyspace","tenant")
);
--> statement-breakpoint
ALTER TABLE "cellfleet_control"."agent" ADD COLUMN "services" text[] DEFAULT array['default'] NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "stage" text DEFAULT 'enforce' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "stage_applied" text DEFAULT 'enforce' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "would_refuse" jsonb DEFAULT '{}'::jsonb NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "guarded_tables" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "global_services" jsonb DEFAULT '{}'::jsonb NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "alias_salt" text DEFAULT replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '') NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."router" ADD COLUMN "would_refuse" jsonb DEFAULT '{}'::jsonb NOT NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "claim_exclusive" ON "cellfleet_control"."claim" USING btree ("namespace","hash") WHERE exclusive and state <> 'released';--> statement-breakpoint
CREATE INDEX "claim_revision" ON "cellfleet_control"."claim" USING btree ("revision") WHERE revision is not null;--> statement-breakpoint
CREATE INDEX "claim_tenant" ON "cellfleet_control"."claim" USING btree ("keyspace","tenant");--> statement-breakpoint
CREATE INDEX "claim_expiry" ON "cellfleet_control"."claim" USING btree ("expires_at") WHERE state = 'reserved';