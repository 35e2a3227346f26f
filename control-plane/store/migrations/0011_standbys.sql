CREATE TABLE "cellfleet_control"."failover" (
	"op" text PRIMARY KEY NOT NULL,
	"cell" text NOT NULL,
	"region" text NOT NULL,
	"mode" text NOT NULL,
	"started_by" text NOT NULL,
	"plan" jsonb NOT NULL,
	"options" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"wish" text DEFAULT 'none' NOT NULL,
	"evidence" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"phases" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"progress" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"revoked_at" timestamp with time zone,
	"fenced_at" timestamp with time zone,
	"report" jsonb,
	"open" boolean DEFAULT true NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."failover_ack" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "cellfleet_control"."failover_ack_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"failover" text NOT NULL,
	"router" text NOT NULL,
	"instance" text NOT NULL,
	"entries" jsonb NOT NULL,
	"complete_since_ms" double precision NOT NULL,
	"router_now_ms" double precision NOT NULL,
	"last" boolean NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."standby" (
	"annex" text PRIMARY KEY NOT NULL,
	"origin" text NOT NULL,
	"host" text NOT NULL,
	"generation" integer DEFAULT 1 NOT NULL,
	"provider" text NOT NULL,
	"bucket_lo" integer NOT NULL,
	"bucket_hi" integer NOT NULL,
	"state" text NOT NULL,
	"reason" text DEFAULT '' NOT NULL,
	"listed_at" bigint,
	"unlisted_at" bigint,
	"lag_bytes" double precision,
	"heartbeat_age_ms" double precision,
	"sees" text DEFAULT 'unknown' NOT NULL,
	"reported_at" timestamp with time zone,
	"promise_remaining_ms" double precision DEFAULT 0 NOT NULL,
	"order_failover" text,
	"order_attempt" integer DEFAULT 0 NOT NULL,
	"order_open" boolean DEFAULT false NOT NULL,
	"takeover_failover" text,
	"takeover_attempt" integer DEFAULT 0 NOT NULL,
	"takeover_open" boolean DEFAULT false NOT NULL,
	"severed_at" timestamp with time zone,
	"remote_lsn" text,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "annex_origin" text;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "annex_host" text;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "halted" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "partner_revision" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "partner_acked" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
CREATE INDEX "failover_cell" ON "cellfleet_control"."failover" USING btree ("cell");--> statement-breakpoint
CREATE INDEX "failover_created" ON "cellfleet_control"."failover" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "failover_ack_failover" ON "cellfleet_control"."failover_ack" USING btree ("failover");--> statement-breakpoint
CREATE INDEX "standby_origin" ON "cellfleet_control"."standby" USING btree ("origin");--> statement-breakpoint
CREATE INDEX "standby_host" ON "cellfleet_control"."standby" USING btree ("host");