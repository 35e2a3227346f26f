-- The migrator keeps its own table in this schema, so it exists before the first migration.
CREATE SCHEMA IF NOT EXISTS "cellfleet_control";
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."agent" (
	"cell" text NOT NULL,
	"instance" text NOT NULL,
	"endpoint" text NOT NULL,
	"is_primary" boolean NOT NULL,
	"app_reachable" boolean DEFAULT false NOT NULL,
	"database_reachable" boolean DEFAULT false NOT NULL,
	"seen_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "agent_cell_instance_pk" PRIMARY KEY("cell","instance")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."audit" (
	"id" bigint PRIMARY KEY NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"actor" text NOT NULL,
	"role" text NOT NULL,
	"action" text NOT NULL,
	"object" text NOT NULL,
	"reason" text NOT NULL,
	"outcome" text NOT NULL,
	"before" jsonb,
	"after" jsonb,
	"prev" text NOT NULL,
	"hash" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."cell" (
	"id" text PRIMARY KEY NOT NULL,
	"state" text NOT NULL,
	"goal" text NOT NULL,
	"health" text DEFAULT 'unknown' NOT NULL,
	"health_reason" text DEFAULT 'no agent has reported yet' NOT NULL,
	"region" text NOT NULL,
	"failure_domain" text NOT NULL,
	"tiers" text[] NOT NULL,
	"dedicated" boolean NOT NULL,
	"provider" text NOT NULL,
	"capacity_tenants" bigint NOT NULL,
	"capacity_bytes" bigint NOT NULL,
	"capacity_rps" double precision NOT NULL,
	"max_tenant_share" double precision NOT NULL,
	"used_tenants" bigint DEFAULT 0 NOT NULL,
	"used_bytes" bigint DEFAULT 0 NOT NULL,
	"used_rps" double precision DEFAULT 0 NOT NULL,
	"services" jsonb NOT NULL,
	"stores" jsonb NOT NULL,
	"release" text DEFAULT '' NOT NULL,
	"schema_version" text DEFAULT '' NOT NULL,
	"grant_no" bigint DEFAULT 0 NOT NULL,
	"lease_granted_at" timestamp with time zone,
	"lease_ttl_ms" integer DEFAULT 0 NOT NULL,
	"lease_term" bigint DEFAULT 0 NOT NULL,
	"revoking" boolean DEFAULT false NOT NULL,
	"system_identifier" text DEFAULT '' NOT NULL,
	"timeline" integer DEFAULT 0 NOT NULL,
	"applied_revision" bigint DEFAULT 0 NOT NULL,
	"epoch_max_seen" bigint DEFAULT 0 NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."event" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "cellfleet_control"."event_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"at" timestamp with time zone DEFAULT now() NOT NULL,
	"kind" text NOT NULL,
	"object" text NOT NULL,
	"text" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."fleet" (
	"one" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"id" text NOT NULL,
	"revision" bigint DEFAULT 0 NOT NULL,
	"config_revision" bigint DEFAULT 0 NOT NULL,
	"mode" text DEFAULT 'normal' NOT NULL,
	"mode_reason" text DEFAULT '' NOT NULL,
	"tenant_sources" jsonb NOT NULL,
	"service_routes" jsonb NOT NULL,
	"audit_entries" bigint DEFAULT 0 NOT NULL,
	"audit_head" text DEFAULT '' NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."id_lease" (
	"sequence" text NOT NULL,
	"lo" bigint NOT NULL,
	"hi" bigint NOT NULL,
	"cell" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "id_lease_sequence_lo_pk" PRIMARY KEY("sequence","lo")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."id_sequence" (
	"sequence" text PRIMARY KEY NOT NULL,
	"next" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."idempotency" (
	"token_id" text NOT NULL,
	"key" text NOT NULL,
	"request_hash" text NOT NULL,
	"status" integer,
	"body" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "idempotency_token_id_key_pk" PRIMARY KEY("token_id","key")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."keyspace" (
	"name" text PRIMARY KEY NOT NULL,
	"strategy" text NOT NULL,
	"slot_count" integer,
	"guard_mode" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."leader" (
	"one" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"term" bigint DEFAULT 0 NOT NULL,
	"holder" text DEFAULT '' NOT NULL,
	"expires_at" timestamp with time zone DEFAULT '-infinity' NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."op" (
	"id" text PRIMARY KEY NOT NULL,
	"kind" text NOT NULL,
	"object" text NOT NULL,
	"state" text NOT NULL,
	"step" text NOT NULL,
	"headline" text NOT NULL,
	"attempt" integer DEFAULT 0 NOT NULL,
	"version" integer DEFAULT 1 NOT NULL,
	"revision" bigint,
	"steps" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"error" jsonb,
	"input" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"result" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"actor" text NOT NULL,
	"reason" text DEFAULT '' NOT NULL,
	"plan" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"deadline_at" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."placement" (
	"key" text PRIMARY KEY NOT NULL,
	"keyspace" text NOT NULL,
	"kind" text NOT NULL,
	"value" text NOT NULL,
	"cell" text NOT NULL,
	"epoch" bigint NOT NULL,
	"state" text NOT NULL,
	"revision" bigint NOT NULL,
	"op" text NOT NULL,
	"attempt" integer DEFAULT 0 NOT NULL,
	"deleted" boolean DEFAULT false NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."router" (
	"id" text PRIMARY KEY NOT NULL,
	"instance" text NOT NULL,
	"admin" text NOT NULL,
	"revision" bigint NOT NULL,
	"epoch_max" bigint DEFAULT 0 NOT NULL,
	"checksum" text DEFAULT '' NOT NULL,
	"release" text DEFAULT '' NOT NULL,
	"seen_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."tenant" (
	"id" text PRIMARY KEY NOT NULL,
	"keyspace" text NOT NULL,
	"tier" text NOT NULL,
	"region" text,
	"size_bytes" bigint NOT NULL,
	"size_rps" double precision NOT NULL,
	"measured_rows" bigint DEFAULT 0 NOT NULL,
	"measured_bytes" bigint DEFAULT 0 NOT NULL,
	"measured_rps" double precision DEFAULT 0 NOT NULL,
	"labels" jsonb NOT NULL,
	"placement_key" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."token" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"role" text NOT NULL,
	"subject" text,
	"hash" text NOT NULL,
	"expires_at" timestamp with time zone,
	"revoked_at" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE INDEX "idempotency_age" ON "cellfleet_control"."idempotency" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "op_open" ON "cellfleet_control"."op" USING btree ("state") WHERE state in ('pending','running');--> statement-breakpoint
CREATE INDEX "op_object" ON "cellfleet_control"."op" USING btree ("object");--> statement-breakpoint
CREATE INDEX "placement_revision" ON "cellfleet_control"."placement" USING btree ("revision");--> statement-breakpoint
CREATE INDEX "placement_cell_revision" ON "cellfleet_control"."placement" USING btree ("cell","revision");--> statement-breakpoint
CREATE INDEX "placement_pending" ON "cellfleet_control"."placement" USING btree ("cell") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "placement_pending_op" ON "cellfleet_control"."placement" USING btree ("op") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "placement_container" ON "cellfleet_control"."placement" USING btree ("keyspace","kind",value COLLATE "C");--> statement-breakpoint
CREATE INDEX "tenant_placement_key" ON "cellfleet_control"."tenant" USING btree ("placement_key");--> statement-breakpoint
CREATE INDEX "tenant_labels" ON "cellfleet_control"."tenant" USING gin ("labels");--> statement-breakpoint
CREATE UNIQUE INDEX "token_hash" ON "cellfleet_control"."token" USING btree ("hash");